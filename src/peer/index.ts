/** Peers: processes that talk directly over TCP; Postgres is their phone book, offline queue and ack ledger. */

export type { PeerSettings, PeerSettingsInput } from "../../generated/ts/settings/peer.js";
export type { Headers } from "../channel/index.js";
export {
  type ErrorCode,
  type ErrorEntry,
  type ErrorOutcome,
  HawserError,
  type HawserErrorOptions,
  PeerError,
  PostgresError,
  StoreError,
  TransportError,
  WireError,
} from "../errors/index.js";
export { version } from "../files/index.js";
export type { Logger } from "../runtime/index.js";
export type { PendingMessages, Transaction } from "../store/index.js";
export type { PemSource, TlsOptions } from "../transport/index.js";
export type { DurableOutcome, Handler, Message, Receipt, SendOptions, TransientOutcome } from "./message.js";
export type { PeerOptions, StopOptions } from "./options.js";
export { type ListenerEntry, Peer, type SendAllReceipt } from "./peer.js";
export type { PeerStatus, PeerStatusKind } from "./status.js";
