/**
 * What a participant of a pattern is given, whatever its part.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Peer } from "../../src/jobs-and-peers/peer/index.js";

/** A participant's place in its pattern. Each runs in a process of its own. */
export interface Participant {
  readonly name: string;
  readonly databaseUrl: string;
  /** Waits until every participant of the pattern has come as far as this. */
  everybody(hasDone: string): Promise<void>;
  /** Runs the work 10 times, a second after each other, and prints how long each took. */
  cycles(work: () => Promise<unknown>): Promise<void>;
  /** Prints a line under its name. */
  say(line: string): void;
}

/** A part in a pattern: what a process does from its beginning to its end. */
export type Part = (participant: Participant) => Promise<void>;

/** How many cycles each sender makes. */
export const cycleCount = 10;

/** Waits until the listeners have taken what was stored for them: from then on all that was sent has been handled. */
export async function allTaken(sender: Peer): Promise<void> {
  while ((await sender.pending()).count > 0) await delay(20);
}
