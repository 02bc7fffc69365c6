/** `hawser jobs cancel` and `hawser outbox cancel`: enqueued messages of one kind, by their ids or their destination. */
import { HawserError, plural } from "../../foundation/errors/index.js";
import { type Cancelled, cancelMessages, type EnqueuedKind, withCommandDatabase } from "../operate/index.js";
import { refusal } from "./command-line.js";
import { confirmed } from "./confirmation.js";
import { idOf } from "./options.js";
import { printable, printOutcomes } from "./output.js";
import { momentOf } from "./quantities.js";

/** Values of the arguments. */
export interface CancelArguments {
  readonly ids: readonly string[];
  readonly destination: string | undefined;
  readonly flow?: boolean | undefined;
  readonly key?: string | undefined;
  readonly "older-than"?: string | undefined;
  readonly yes?: boolean | undefined;
  readonly json?: boolean | undefined;
}

/** Words of the two commands. */
const words = {
  peer: {
    command: "jobs",
    noun: "job",
    to: "--topic",
    question: "that wait will be deleted, with payload, and those that run are asked to end",
    ended: "handled or cancelled already? `hawser jobs show ID` says what has become of one",
  },
  nats: {
    command: "outbox",
    noun: "message",
    to: "--to",
    question: "that are due later will be deleted, with payload",
    ended: "published or cancelled already? See `hawser outbox list`",
  },
} as const satisfies Record<EnqueuedKind, unknown>;

/** Cancels, after a question on a terminal if no ids are given. @throws HawserError `invalid_argument` */
export async function cancel(url: string | undefined, kind: EnqueuedKind, args: CancelArguments): Promise<void> {
  check(kind, args);
  const { destination, flow, key, yes, json = false } = args;
  const before = momentOf("--older-than", args["older-than"]);
  const ids = args.ids.map(idOf);
  const outcomes: Cancelled[] = [];
  if (destination !== undefined && !yes && !(await confirmed(async () => questionOf(kind, destination, args)))) return;
  await withCommandDatabase(url, async (database) => {
    const selection = { kind, ids, flow, destination, key, before };
    for await (const page of cancelMessages(database, selection)) outcomes.push(...page);
  });
  await report(kind, outcomes, json);
}

function check(kind: EnqueuedKind, { ids, destination, flow, yes, ...args }: CancelArguments): void {
  const { command, noun, to } = words[kind];
  const refuse = (why: string): never => {
    throw refusal(command, "cancel", why);
  };
  if (ids.length > 0 === (destination !== undefined))
    refuse(`name the ${noun}s, or all with ${to}; \`hawser ${command} list\` shows ids`);
  if (destination === undefined && (args.key ?? args["older-than"]) !== undefined)
    refuse(`--key and --older-than go with ${to}`);
  if (yes && destination === undefined) refuse(`--yes goes with ${to}`);
  if (flow && ids.length === 0) refuse("--flow goes with ids");
}

function questionOf(kind: EnqueuedKind, destination: string, { key, "older-than": age }: CancelArguments): string {
  const { noun, question } = words[kind];
  const withKey = key === undefined ? "" : ` with the key "${printable(key)}"`;
  const older = age === undefined ? "" : ` that are older than ${printable(age)}`;
  return `The ${noun}s of "${printable(destination)}"${withKey}${older} ${question}, which cannot be undone. Cancel them?`;
}

async function report(kind: EnqueuedKind, outcomes: readonly Cancelled[], json: boolean): Promise<void> {
  const { noun, ended } = words[kind];
  const of = (wanted: Cancelled["outcome"]) => outcomes.filter(({ outcome }) => outcome === wanted);
  const cancelling = of("cancelling").length;
  const summary = [
    `Cancelled ${plural(of("cancelled").length, noun)}.`,
    ...(cancelling === 0 ? [] : [cancellingText[kind](cancelling)]),
  ];
  await printOutcomes(outcomes, json, () => summary.join(" "));
  const missing = of("not_waiting").map(({ id }) => id);
  if (missing.length === 0) return;
  const which = `${missing.slice(0, 10).join(", ")}${missing.length > 10 ? ", …" : ""}`;
  throw new HawserError("invalid_argument", `no ${noun} ${which} waits: ${ended}.`);
}

const cancellingText: Record<EnqueuedKind, (count: number) => string> = {
  peer: (count) => `${plural(count, "job")} may be running: their signals are aborted.`,
  nats: (count) => `${plural(count, "message")} may be on the way to NATS.`,
};
