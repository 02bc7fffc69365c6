/**
 * Cost of a message in the relay as sessions, payload length, keys and backlog grow.
 */
import { BySize, counted } from "../by-size.js";
import { formatBytes, formatValue } from "../report.js";
import type { Measured, SuiteContext } from "../suite.js";
import type { Worker } from "../worker.js";
import type { Relayed, WritingRequests } from "./process.js";
import { rowsOfStatement, rowsOfTransaction } from "./ways.js";

const full = {
  rounds: 3,
  sessions: [1, 8, 32],
  messages: 100_000,
  payloads: [100, 1_024, 10_240],
  bytes: 100_000_000,
  keys: [1, 100, 10_000],
  messagesOfKeys: 20_000,
  backlogs: [10_000, 100_000, 1_000_000],
};
const quick = {
  rounds: 1,
  sessions: [1, 2],
  messages: 200,
  payloads: [100, 1_024],
  bytes: 200_000,
  keys: [1, 10],
  messagesOfKeys: 100,
  backlogs: [100, 1_000],
};

const sessionsOf = counted("session");
const keysOf = counted("key");
const backlogOf = (messages: number): string => `${formatValue(messages)} waiting`;

/** The relay is at work. Every result is µs a message, from the first commit until the stream has acknowledged all. */
export async function relayingByWork(
  context: SuiteContext,
  writing: Worker<WritingRequests>,
  payloadBytes: number,
): Promise<Measured[]> {
  const sizes = context.quick ? quick : full;
  const bySessions = new BySize(sessionsOf);
  const byPayload = new BySize(formatBytes);
  const byKeys = new BySize(keysOf);
  const byBacklog = new BySize(backlogOf);
  const microseconds = async (request: "commitAll" | "commitBacklog", load: Load): Promise<number> => {
    context.signal.throwIfAborted();
    return ((await writing.request(request, { way: "Hawser", payloadBytes, ...load })) * 1e6) / load.messages;
  };
  for (let round = 1; round <= context.rounds(sizes.rounds); round++) {
    context.say(`Measuring how the relay's work grows, round ${round}`);
    for (const sessions of sizes.sessions) {
      const load = { messages: sizes.messages, rows: rowsOfTransaction, sessions };
      bySessions.add("time by sessions", "µs", sessions, await microseconds("commitAll", load));
    }
    for (const bytes of sizes.payloads) {
      const messages = Math.min(sizes.messages, Math.round(sizes.bytes / bytes));
      const load = { payloadBytes: bytes, messages, rows: rowsOfTransaction };
      byPayload.add("time by payload", "µs", bytes, await microseconds("commitAll", load));
    }
    for (const ofKeys of sizes.keys) {
      const load = { messages: sizes.messagesOfKeys, rows: rowsOfStatement, ofKeys };
      byKeys.add("time by keys", "µs", ofKeys, await microseconds("commitBacklog", load));
    }
    for (const messages of sizes.backlogs) {
      const load = { messages, rows: rowsOfStatement };
      byBacklog.add("time by backlog", "µs", messages, await microseconds("commitBacklog", load));
    }
  }
  return [
    ...bySessions.results(payloadBytes),
    ...byPayload.results((bytes) => bytes),
    ...byKeys.results(payloadBytes),
    ...byBacklog.results(payloadBytes),
  ];
}

type Load = Partial<Pick<Relayed, "payloadBytes">> &
  Pick<Relayed, "messages" | "rows"> & { readonly sessions?: number; readonly ofKeys?: number };
