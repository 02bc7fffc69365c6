/**
 * Which of several processes runs the subscriptions, and what the others keep to take over from it.
 */

export type { LeaderProgress } from "./known-progress.js";
export { Lead, type LeadOptions } from "./lead.js";
export type { LeadEvents, LeadMessages, Unfinished } from "./lead-events.js";
export type { OthersHave } from "./lead-protocol.js";
export {
  type KeptMessage,
  TakeoverBuffer,
  type TakeoverBufferLimits,
  type TakeoverCounts,
} from "./takeover-buffer.js";
