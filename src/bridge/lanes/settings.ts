import type { ByteBudget } from "./byte-budget.js";
import type { Discards } from "./discards.js";

/** What lanes go by, the same for all lanes of a process. */
export interface LaneSettings {
  readonly maxBatchMessages: number;
  /** In what `memoryOf` says; a single message may have more. */
  readonly maxBatchBytes: number;
  /** How long a batch may be expected to take. Well below the statement timeout. */
  readonly batchTargetMs: number;
  /** The pause after the first transient failure in a row; it doubles … */
  readonly pauseMinMs: number;
  /** … up to this. */
  readonly pauseMaxMs: number;
  /** After so many transient failures a retried dead letter stays what it is; messages are tried without end. */
  readonly retryTries: number;
  /** The error code of what loses its session while it is alone. */
  readonly sessionLostCode: string;
  /** 0 to 1, so that lanes that paused together do not all go on together. */
  readonly random: () => number;
}

/** What all lanes of a process share. */
export interface LaneContext {
  readonly settings: LaneSettings;
  readonly budget: ByteBudget;
  readonly discards: Discards;
}

/** What a lane has done since it was made. */
export interface LaneCounts {
  readonly committed: number;
  readonly buried: number;
  /** Dead letters that were tried again with success. */
  readonly retried: number;
  /** Steps that reached Postgres, whatever became of them. */
  readonly transactions: number;
  /** Batches that were halved. */
  readonly bisections: number;
}
