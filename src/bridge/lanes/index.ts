/** Batched execution as pure state machines: lanes, and the scheduler that shares sessions among them. */
export { type Admission, ByteBudget, type LaneMemory, type Wanted } from "./byte-budget.js";
export { Discards } from "./discards.js";
export { Lane } from "./lane.js";
export { LaneScheduler, type Wait } from "./lane-scheduler.js";
export type { FunctionError, FunctionOutcome, Outcome } from "./outcome.js";
export type { LaneContext, LaneCounts, LaneSettings } from "./settings.js";
export type {
  BatchStep,
  BuryStep,
  FetchStep,
  KeepStep,
  RetryJob,
  RetryStep,
  SavedMessage,
  SpillStep,
  Step,
} from "./step.js";
