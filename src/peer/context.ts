import {
  type PeerSettings,
  type ProtocolConstants,
  protocolConstants,
  type StoreConstants,
  storeConstants,
  type TuningSettings,
} from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { type Logger, shared } from "../runtime/index.js";
import type { Lease, Sender, Store } from "../store/index.js";
import type { TlsCredentials } from "../transport/index.js";
import type { Membership } from "./handling-settings.js";
import type { StatusTeller } from "./status.js";

/** Settings of a peer and the constants of protocol and store: each reader takes a `Pick` of it, and gets all of it. */
export type PeerLimits = PeerSettings & TuningSettings & ProtocolConstants & StoreConstants;

export function limitsOf(settings: PeerSettings, tuning: TuningSettings): PeerLimits {
  return { ...protocolConstants, ...storeConstants, ...settings, ...tuning };
}

/** What the parts of a running peer share. */
export interface PeerContext {
  readonly sender: Sender;
  readonly settings: PeerLimits;
  /** As it was at the start; it stays while the peer runs. */
  readonly membership: Membership;
  readonly store: Store;
  readonly lease: Lease;
  readonly status: StatusTeller;
  readonly logger: Logger;
  /** Undefined for a peer that speaks plaintext. */
  readonly tls: TlsCredentials | undefined;
  /** The mesh secrets, newest first, as last read. */
  readonly secrets: SecretCache;
  /** Another process has the name: the peer ends. */
  nameLost(cause: string): void;
}

/** The error itself if it is one of ours, else `internal` with it as the cause. */
export function asHawserError(error: unknown): HawserError {
  if (error instanceof HawserError) return error;
  return new HawserError("internal", error instanceof Error ? error.message : String(error), { cause: error });
}

/** The mesh secrets: read at start, whenever they change, and again when a handshake fails. */
export class SecretCache {
  #known: readonly Uint8Array[] = [];
  #stale = false;

  readonly #store: Pick<Store, "secrets" | "on">;

  constructor(store: Pick<Store, "secrets" | "on">) {
    this.#store = store;
  }

  /** They are known to have changed, and could not be read since. */
  get isStale(): boolean {
    return this.#stale;
  }

  /** Reads them. @throws HawserError `store_failed` */
  readonly refresh = shared(async () => {
    this.#stale = true;
    this.#known = await this.#store.secrets();
    this.#stale = false;
  });

  /** Reads them again when they change, and with each new database session, since the change may have been missed. */
  follow(logger: Logger): () => void {
    let awaited: Promise<void> | undefined;
    const again = (): void => {
      const refreshed = this.refresh();
      // Any login can notify without end: what waits for one reading is one call.
      if (refreshed === awaited) return;
      awaited = refreshed;
      refreshed.catch((err) => logger.debug({ err }, "could not read the mesh secrets again; trying again later"));
    };
    const unlisten = [
      this.#store.on("secrets", again),
      this.#store.on("session", (state) => {
        if (state === "up") again();
      }),
    ];
    return () => {
      for (const stop of unlisten) stop();
    };
  }

  get all(): readonly Uint8Array[] {
    return this.#known;
  }

  /**
   * The one to dial with: the newest. A listener that has not heard of that one yet takes the one before.
   *
   * @param refusals how often in a row the listener has not accepted what it was shown
   */
  toDial(refusals: number): Uint8Array {
    return this.#known[refusals % this.#known.length] ?? new Uint8Array();
  }
}
