/**
 * Compares the outcomes that callers received with the effects that the witness observed.
 */
import { eventually } from "../../support/eventually.js";
import { acknowledged, callKinds } from "./sql-calls.js";
import type { CallRecord, SqlLoad } from "./sql-load.js";
import { contentOf, payloadOf, tokenIn } from "./sql-token.js";
import type { SqlWitness } from "./sql-witness.js";

/** Findings of the audit of a load. */
export interface SqlFindings {
  /** Answers and effects that are not those of their calls: must be empty. */
  readonly wrong: readonly string[];
  /** Messages of JetStream, values and files that are missing though their calls were confirmed: must be empty. */
  readonly missing: readonly string[];
  /** Messages that are there twice: must be empty. */
  readonly twice: readonly string[];
  /** Effects of calls whose error says that nothing was sent: must be empty. */
  readonly denied: readonly string[];
  /** Errors that none of the faults explains: must be empty. */
  readonly strange: readonly string[];
  /** Calls that took longer than their time limit and `slackOf`: must be empty. */
  readonly late: readonly string[];
  /** Core messages that were confirmed and did not arrive. */
  readonly lost: number;
  readonly summary: string;
}

/**
 * Tolerance beyond a call's time limit, in milliseconds. A call has many steps in several processes, and on a busy machine
 * each of them may wait as long as the longest delay of an idle process.
 */
const slackOf = ({ longestPulseMs }: SqlLoad): number => 2_000 + 20 * longestPulseMs;

/**
 * Looks at everything. The load must have stopped.
 *
 * @param onTheirWayMs how long a core message may be on its way after its call was confirmed, in milliseconds
 */
export async function auditSql(load: SqlLoad, onTheirWayMs = 20_000): Promise<SqlFindings> {
  const { witness } = load.options;
  const isThere = (call: CallRecord): boolean => call.tokens.every((token) => witness.messages.has(token));
  const confirmed = load.calls.filter(
    ({ kind, outcome }) => outcome === "confirmed" && callKinds[kind].effect === "core",
  );
  // They may be on their way still, as the server reads each connection by itself. What does not come is lost.
  await eventually("all core messages are there", () => confirmed.every(isThere), onTheirWayMs).catch(() => undefined);
  await witness.settled();
  const wrong = [...load.wrong, ...witness.damaged.map((payload) => `damaged: ${payload}`)];
  const streamed = await witness.streamMessages();
  wrong.push(...wrongNumbers(witness, streamed));
  const found = { missing: [] as string[], twice: [] as string[], denied: [] as string[] };
  let lost = 0;
  let happened = 0;
  let open = 0;
  const times = await counter(witness, streamed, wrong);
  for (const call of load.calls) {
    const { effect } = callKinds[call.kind];
    if (effect === "none") continue;
    for (const token of call.tokens) {
      const count = times[effect](token);
      const what = `${call.kind} ${token} (${call.sqlstate ?? "confirmed"}${call.words === undefined ? "" : `: ${call.words}`})`;
      if (count > 1) found.twice.push(what);
      if (call.outcome === "refused" && count > 0) found.denied.push(what);
      if (call.outcome === "unknown") count > 0 ? happened++ : open++;
      if (call.outcome !== "confirmed" || count > 0) continue;
      if (effect === "core") lost++;
      else found.missing.push(what);
    }
  }
  const strange = load.calls.filter(({ outcome }) => outcome === "strange");
  const late = load.calls.filter(({ kind, begun, ended }) => ended - begun > load.limitOf(kind) + slackOf(load));
  return {
    ...found,
    wrong,
    strange: strange.map(({ kind, sqlstate, words }) => `${kind}: ${sqlstate} ${words}`),
    late: late.map(({ kind, begun, ended, words }) => `${kind}: ${Math.round(ended - begun)} ms: ${words}`),
    lost,
    summary: `${summaryOf(load)}; of the unknown messages ${happened} arrived, ${open} did not; ${lost} confirmed core messages lost`,
  };
}

/** Findings of every correct load. `lost` is left to the test. */
export const nothingWrong = { wrong: [], missing: [], twice: [], denied: [], strange: [], late: [] } as const;

/** The part of the findings that must be as in `nothingWrong`. At most a few of each, so that a failure stays readable. */
export function faultsOf(findings: SqlFindings): Record<keyof typeof nothingWrong, string[]> {
  const names = Object.keys(nothingWrong) as (keyof typeof nothingWrong)[];
  return Object.fromEntries(names.map((name) => [name, findings[name].slice(0, 5)])) as never;
}

function summaryOf({ calls, sessions, longestPulseMs }: SqlLoad): string {
  const count = (outcome: CallRecord["outcome"]): number => calls.filter((call) => call.outcome === outcome).length;
  const states: Record<string, number> = {};
  for (const { sqlstate } of calls) if (sqlstate !== undefined) states[sqlstate] = (states[sqlstate] ?? 0) + 1;
  const errors = Object.entries(states).map(([state, times]) => `${state} × ${times}`);
  const slowest = Math.max(...calls.map(({ begun, ended }) => ended - begun));
  return (
    `${calls.length} calls of ${sessions} sessions, ${count("confirmed")} confirmed, ${count("unknown")} unknown, ` +
    `${count("refused")} refused; errors: ${errors.join(", ") || "none"}; slowest call ${Math.round(slowest)} ms, slowest pulse ${Math.round(longestPulseMs)} ms`
  );
}

/** Finds acknowledged calls whose payload is not in the stream at the acknowledged number. */
function wrongNumbers(witness: SqlWitness, streamed: ReadonlyMap<number, string>): string[] {
  const found: string[] = [];
  for (const [token, seq] of acknowledged(witness)) {
    const payload = streamed.get(seq);
    if (payload !== payloadOf(token)) found.push(`ack ${token}: number ${seq} has ${payload?.slice(0, 40)}`);
  }
  return found;
}

/** For each effect: how often it was seen. */
async function counter(
  witness: SqlWitness,
  streamed: ReadonlyMap<number, string>,
  wrong: string[],
): Promise<Record<"request" | "core" | "stream" | "value" | "file", (token: string) => number>> {
  const inStream = new Map<string, number>();
  for (const payload of streamed.values()) {
    const token = tokenIn(payload);
    if (token === undefined) wrong.push(`damaged in the stream: ${payload.slice(0, 100)}`);
    else inStream.set(token, (inStream.get(token) ?? 0) + 1);
  }
  const values = await witness.values();
  for (const [key, value] of values) {
    if (value !== payloadOf(key)) wrong.push(`the value of ${key} is ${value.slice(0, 100)}`);
  }
  const files = await witness.files();
  for (const [name, content] of files) {
    if (content === "damaged" || !content.equals(contentOf(name))) wrong.push(`the file ${name} is damaged`);
  }
  return {
    request: (token) => witness.requests.get(token) ?? 0,
    core: (token) => witness.messages.get(token) ?? 0,
    stream: (token) => inStream.get(token) ?? 0,
    value: (token) => (values.has(token) ? 1 : 0),
    file: (token) => (files.has(token) ? 1 : 0),
  };
}
