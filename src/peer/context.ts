import type { PeerSettings } from "../../generated/ts/settings/peer.js";
import type { Lease, Logger, Sender, Store } from "../store/index.js";
import type { StatusEmitter } from "./status.js";

/** What the parts of a running peer share. */
export interface PeerContext {
  readonly sender: Sender;
  readonly settings: PeerSettings;
  readonly store: Store;
  readonly lease: Lease;
  readonly status: StatusEmitter;
  readonly logger: Logger;
  /** The mesh secrets, newest first, as last read. */
  readonly secrets: SecretCache;
  /** Another process has the name: the peer ends. */
  nameLost(cause: string): void;
}

/** The mesh secrets, read at start and again when a handshake fails. */
export class SecretCache {
  private known: readonly Uint8Array[] = [];

  constructor(private readonly store: Pick<Store, "secrets">) {}

  /** @throws StoreError `store_failed` */
  async refresh(): Promise<void> {
    this.known = await this.store.secrets();
  }

  get all(): readonly Uint8Array[] {
    return this.known;
  }

  /** The one to dial with. */
  get newest(): Uint8Array {
    return this.known[0] ?? new Uint8Array();
  }
}
