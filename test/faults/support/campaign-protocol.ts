/**
 * What the processes of the campaign and its test agree on.
 */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { shortPings } from "./silence.js";

/** Payload of a message of the campaign. */
export interface CampaignPayload {
  /** The row of `sent`. */
  readonly id: string;
  /** Attempts that fail. */
  readonly fails: number;
  /** The handler asks a question in its transaction. */
  readonly asks?: boolean;
  /** The handler replies in its transaction. */
  readonly replies?: boolean;
}

/** Consumers of each kind of message: a durable listener has a copy of each message for all, also while another has its channels. */
export const consumersOf = {
  jobs: ["jobs"],
  batch: ["jobs"],
  later: ["jobs"],
  shared: ["jobs"],
  ask: ["jobs", "answers"],
  readings: ["readings"],
  work: ["work"],
  direct: ["direct"],
  news: ["news red", "news blue", "news solo-1", "news solo-2"],
} as const;

export type CampaignKind = keyof typeof consumersOf;

/**
 * What the writers do. `all`: everything. `enqueue`: only what the database itself knows all of, so that what it has after a failover that
 * loses commits still fits together.
 */
export type CampaignScope = "all" | "enqueue";

/** Exit status of a peer's program that has lost its name. */
export const nameLostStatus = 3;

/** Retries of messages whose handlers fail for a while: no campaign makes dead letters of them. */
export const campaignRetry = { attempts: 1_000_000, delayMs: 400, factor: 5, maxDelayMs: 4_000 };

/** Shortens what a campaign would only wait for: pings. */
export function shortenConstants(): void {
  Object.assign(protocolConstants, shortPings);
}

/** Moves the process's clock by as many milliseconds as each line of standard input says. The lines do not keep the process. */
export function heedClock(): void {
  const now = Date.now.bind(Date);
  let offsetMs = 0;
  Date.now = () => now() + offsetMs;
  globalThis.Date = new Proxy(Date, {
    construct: (RealDate, args, target) =>
      Reflect.construct(RealDate, args.length === 0 ? [RealDate.now()] : args, target) as Date,
  });
  const { stdin } = process;
  stdin.on("data", (chunk: Buffer) => {
    for (const line of chunk.toString().split("\n")) if (line !== "") offsetMs += Number(line);
  });
  (stdin as Partial<{ unref(): void }>).unref?.();
}
