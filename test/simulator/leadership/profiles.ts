/**
 * Faults that may happen in a run. Not all of them in each: the rules that must hold depend on the permitted faults.
 */

/** A kind of fault. */
export type Fault =
  | "kill"
  | "clean stop"
  | "all stop"
  | "stall"
  | "session"
  | "restart"
  | "failover"
  | "start"
  | "newcomer"
  | "refused login";

export interface Profile {
  readonly faults: readonly Fault[];
  /** Maximum delay with which one process receives a message after another. */
  readonly maxDelayMs: number;
  readonly bufferMs: number;
  readonly cleanMs: number;
  /** Some statements take up to so long in either direction. */
  readonly slowRate: number;
  readonly slowMs: number;
  /** Some functions hang. */
  readonly hangRate: number;
  readonly hangMs: number;
  /** The last one may end, too, and what it has is saved. */
  readonly mayAllLeave?: boolean;
  /** Somebody who has received everything takes over. */
  readonly keepsOrder?: boolean;
  /** Nothing that happens is a reason for another leader. */
  readonly isCalm?: boolean;
  /** The last commits before a failover are often those of a process that has just taken the lead, which then stands still. */
  readonly failsOverAfterTake?: boolean;
}

const usual = {
  slowRate: 0.05,
  slowMs: 300,
  hangRate: 0.005,
  hangMs: 6_000,
  maxDelayMs: 400,
  bufferMs: 10_000,
  cleanMs: 500,
} as const;
const hangs = { hangRate: 0.02, hangMs: 20_000 } as const;
const delays = { maxDelayMs: 1_000, cleanMs: 10_000 } as const;

export const profiles = {
  /** Postgres goes and comes back; nobody else does. */
  calm: { ...usual, keepsOrder: true, faults: ["restart", "restart", "session"], maxDelayMs: 300, isCalm: true },
  /** All at once. */
  rough: {
    ...usual,
    ...delays,
    maxDelayMs: 2_500,
    faults: ["kill", "stall", "session", "restart", "clean stop"],
  },
  /** A leader that ends in good order, and messages that come at about the same time. */
  clean: { ...usual, faults: ["clean stop"] },
  /** All end in good order, soon after one another, or after one that was killed. */
  leaving: {
    ...usual,
    faults: ["clean stop", "clean stop", "all stop", "kill", "start", "stall"],
    hangRate: 0.03,
    mayAllLeave: true,
  },
  /** The margin is hardly more than the delays, and answers take their time. */
  tight: {
    ...usual,
    ...hangs,
    maxDelayMs: 450,
    bufferMs: 500,
    slowRate: 0.5,
    slowMs: 900,
    keepsOrder: true,
    faults: ["kill"],
  },
  /** New processes, which have only just begun to keep messages. */
  fresh: { ...usual, ...hangs, keepsOrder: true, faults: ["kill", "start", "start", "restart"], maxDelayMs: 300 },
  /** A leader that stands still beside one that has just come, and has received what that one has not. */
  newcomer: { ...usual, ...hangs, faults: ["newcomer"] },
  /** Processes that cannot run functions for a while, because the login for that is refused. */
  refused: { ...usual, faults: ["refused login"], hangRate: 0 },
  /** Another server, with another clock, and without the last commits. */
  failover: { ...usual, ...delays, faults: ["failover", "failover", "kill", "session", "stall"] },
  /** A failover that loses a takeover. */
  relapse: { ...usual, ...delays, faults: ["kill", "stall"], failsOverAfterTake: true },
  /** Processes that stand still about as long as the others wait, and answers that take their time. */
  stalls: { ...usual, ...delays, faults: ["stall"], slowRate: 0.5, slowMs: 900 },
} as const satisfies Record<string, Profile>;

export type ProfileName = keyof typeof profiles;

export const profileNames = Object.keys(profiles) as readonly ProfileName[];
