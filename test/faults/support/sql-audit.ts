/**
 * Compares the outcomes that callers received with the effects that the witness observed.
 */
import { eventually } from "../../support/eventually.js";
import { audit, type Done, type Sent } from "./ledger.js";
import { acknowledged, callKinds } from "./sql-calls.js";
import type { CallRecord, SqlLoad } from "./sql-load.js";
import { contentOf, payloadOf, tokenIn } from "./sql-token.js";
import type { SqlWitness } from "./sql-witness.js";

/** What the audit of a load has found. */
export interface SqlAudit {
  /** All of them must be empty. */
  readonly findings: {
    /** Messages of JetStream, values and files that are not there though their calls were confirmed. */
    readonly lost: readonly string[];
    readonly twice: readonly string[];
    /** Effects of calls whose error says that nothing was sent. */
    readonly stray: readonly string[];
    /** Answers and effects that are not those of their calls. */
    readonly wrong: readonly string[];
    /** Errors that none of the faults explains. */
    readonly strange: readonly string[];
    /** Calls that took longer than their time limit and `slackOf`. */
    readonly overdue: readonly string[];
  };
  /** Core messages that were confirmed and did not arrive. */
  readonly coreLost: number;
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
export async function auditSql(load: SqlLoad, onTheirWayMs = 20_000): Promise<SqlAudit> {
  const { witness } = load.options;
  const isThere = (call: CallRecord): boolean => call.tokens.every((token) => witness.messages.has(token));
  const core = load.calls.filter(({ kind, outcome }) => outcome === "confirmed" && callKinds[kind].effect === "core");
  // They may be on their way still, as the server reads each connection by itself. What does not come is lost.
  await eventually("all core messages are there", () => core.every(isThere), onTheirWayMs).catch(() => undefined);
  await witness.settled();
  const wrong = [...load.wrong, ...witness.damaged.map((payload) => `damaged: ${payload}`)];
  const streamed = await witness.streamMessages();
  wrong.push(...wrongNumbers(witness, streamed));
  const times = await counter(witness, streamed, wrong);
  const sent: Sent[] = [];
  const done: Done[] = [];
  const open = { arrived: 0, not: 0 };
  let coreLost = 0;
  for (const call of load.calls) {
    const { effect } = callKinds[call.kind];
    if (effect === "none") continue;
    for (const token of call.tokens) {
      const id = `${call.kind} ${token} (${call.sqlstate ?? "confirmed"}${call.words === undefined ? "" : `: ${call.words}`})`;
      const count = times[effect](token);
      sent.push({ id, consumers: [effect], outcome: outcomeOf(call, effect) });
      for (let time = 0; time < count; time++) done.push({ consumer: effect, id });
      if (call.outcome === "unknown") open[count > 0 ? "arrived" : "not"] += 1;
      if (call.outcome === "confirmed" && effect === "core" && count === 0) coreLost += 1;
    }
  }
  const { late: _, ...findings } = audit(sent, done);
  const strange = load.calls.filter(({ outcome }) => outcome === "strange");
  const overdue = load.calls.filter(({ kind, begun, ended }) => ended - begun > load.limitOf(kind) + slackOf(load));
  return {
    findings: {
      ...{ ...findings, wrong },
      strange: strange.map(({ kind, sqlstate, words }) => `${kind}: ${sqlstate} ${words}`),
      overdue: overdue.map(({ kind, begun, ended, words }) => `${kind}: ${Math.round(ended - begun)} ms: ${words}`),
    },
    coreLost,
    summary:
      `${summaryOf(load)}; of the unknown messages ${open.arrived} arrived, ${open.not} did not; ` +
      `${coreLost} confirmed core messages lost`,
  };
}

/** Core NATS confirms what it may still lose; and of an error that nobody expects nobody can say what it means. */
function outcomeOf({ outcome }: CallRecord, effect: string): Sent["outcome"] {
  if (outcome === "refused") return "withdrawn";
  return outcome === "confirmed" && effect !== "core" ? "confirmed" : "unknown";
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
