/** Objects of the process that the calls of handlers use. */
import type { PeerSettings } from "../../../generated/ts/settings/peer.js";
import type { Logger } from "../../foundation/runtime/index.js";
import type { QueueStore } from "../peer-store/index.js";
import type { Lease, Sender } from "../store/index.js";
import type { Membership } from "./handling-settings.js";
import type { StatusReporter } from "./status.js";

/** Objects that handlers are called with, of a running peer or worker. */
export interface HandlingContext {
  readonly sender: Pick<Sender, "name">;
  readonly settings: Pick<PeerSettings, "concurrency" | "maxMessageBytes">;
  /** Group membership at the start; constant during a run. */
  readonly membership: Membership;
  readonly store: QueueStore;
  /** Name in the table of workers: that of the peer, or one under which nothing can be enqueued. */
  readonly workerName: string;
  /** Interval of beats while the worker has no messages; undefined: as while it has some. */
  readonly idleBeatMs: number | undefined;
  /** Right to write under the name; undefined for a worker, which has no channels. */
  readonly lease: Lease | undefined;
  readonly status: StatusReporter;
  readonly logger: Logger;
  /** Stops the peer, because another process owns the name. */
  nameLost(cause: string): void;
}
