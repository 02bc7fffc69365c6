/** A message whose turn has come, as it is handed to what calls the user's handler. */
import type { IncomingMessage } from "../channel/index.js";
import type { Channel, Transaction } from "../store/index.js";
import type { Cancellation } from "./cancellation.js";

/** Where a message comes from. */
export type Source = Pick<Channel, "connectionKey" | "composite" | "senderName" | "sourceTopic">;

/** A message whose turn has come, with its payload uncompressed. */
export interface DueMessage {
  readonly message: IncomingMessage;
  /** The topic that it was sent to. */
  readonly to: string;
  readonly source: Source;
  readonly payload: Uint8Array;
  /** From 1. */
  readonly attempt: number;
  /** The handler's client of Postgres; undefined unless handlers are transactional. */
  readonly client: Transaction | undefined;
  /** Aborted when the handler's time is up, and when the peer stops without waiting for it any longer. Of a request that itself. */
  readonly cancellation: Cancellation;
}
