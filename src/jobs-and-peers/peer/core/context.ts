import type { PeerSettings, TuningSettings } from "../../../../generated/ts/settings/peer.js";
import { type Logger, shared } from "../../../foundation/runtime/index.js";
import type { TlsCredentials } from "../../../foundation/tls/index.js";
import type { SenderLimits } from "../../channel/index.js";
import type { HandlingContext } from "../../handlers/handling-context.js";
import type { Store } from "../../peer-store/index.js";
import type { Lease, Sender } from "../../store/index.js";
import type { PeerCounters } from "../../worker/counters.js";

/** Settings of a peer, and limits of its senders. Each consumer declares a `Pick` of it. */
export type PeerLimits = PeerSettings & TuningSettings & SenderLimits;

/** Objects that the parts of a running peer share. */
export interface PeerContext extends HandlingContext {
  readonly sender: Sender;
  readonly settings: PeerLimits;
  readonly store: Store;
  readonly lease: Lease;
  readonly counters: PeerCounters;
  /** Undefined for a peer that uses plaintext. */
  readonly tls: TlsCredentials | undefined;
  /** Mesh secrets that were read last, newest first. */
  readonly secrets: SecretCache;
  /** Stops the peer if the catalog has a newer epoch of its name. @param cause why that may be */
  checkEpoch(cause: string): Promise<void>;
}

/** Cache of the mesh secrets. They are read at the start, after each change, and after a failed handshake. */
export class SecretCache {
  #secrets: readonly Uint8Array[] = [];
  #isStale = false;

  readonly #store: Pick<Store, "secrets" | "on">;

  constructor(store: Pick<Store, "secrets" | "on">) {
    this.#store = store;
  }

  /** True if the secrets have changed and could not be read since. */
  get isStale(): boolean {
    return this.#isStale;
  }

  /** Reads the secrets. @throws HawserError `store_failed` */
  readonly refresh = shared(async () => {
    this.#isStale = true;
    this.#secrets = await this.#store.secrets();
    this.#isStale = false;
  });

  /**
   * Reads the secrets after each change, and in each new database session because notifications may have been missed.
   * @returns a function that stops following
   */
  follow(logger: Logger): () => void {
    // Any login can send notifications without limit: those that arrive during one query share the next one.
    const reload = shared(() =>
      this.refresh().catch((err) => logger.debug({ err }, "could not read the changed mesh secrets; retrying later")),
    );
    const unlisten = [
      this.#store.on("secrets", reload),
      this.#store.on("session", (state) => state === "up" && void reload()),
    ];
    return () => {
      for (const stop of unlisten) stop();
    };
  }

  get all(): readonly Uint8Array[] {
    return this.#secrets;
  }

  /**
   * Secret for the next dial: the newest, or after refusals an older one, because the listener may not have read the
   * newest yet.
   *
   * @param refusals number of consecutive refusals by the listener
   */
  toDial(refusals: number): Uint8Array {
    return this.#secrets[refusals % this.#secrets.length] ?? new Uint8Array();
  }
}
