/**
 * Checks of the outbox: a relay runs, messages are sent in time, no transaction keeps old messages, and schedules run. What
 * waits for peers is in another check: see `messages.ts`.
 */
import { views } from "../../../generated/ts/rows/outbox.js";
import { views as queueViews } from "../../../generated/ts/rows/queue.js";
import { ago, shellWord } from "../../foundation/errors/index.js";
import { stuckSchedules } from "../operate/index.js";
import { catalogCheck, catalogCheckMs } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";
import { isLed } from "./leader.js";

/** Age from which a waiting message of the outbox is reported. */
const maxOutboxWaitMs = 15_000;
/** Age from which an open transaction is reported that has written into the outbox. */
const maxOutboxWriterMs = 1_800_000;

const statusSql = `
  SELECT s.kind, s.waiting::float8 AS waiting, NOT s.is_complete AS "hasMore", s.oldest_waiting_for AS "oldestFor",
         CASE s.kind WHEN 'nats' THEN extract(epoch FROM clock_timestamp() - s.oldest_waiting_at)::float8 END AS "oldestSeconds",
         extract(epoch FROM clock_timestamp() - s.position_saved_at)::float8 AS "savedSeconds",
         extract(epoch FROM clock_timestamp() - s.next_due_at)::float8 AS "overdueSeconds"
    FROM ${views.outboxStatus} AS s ORDER BY s.kind`;

/**
 * Query: sessions that keep a segment from being emptied. A segment is emptied while no transaction has any lock of it.
 */
const writersSql = `
  SELECT a.pid, a.application_name AS application, a.state, extract(epoch FROM now() - a.xact_start)::float8 AS seconds
    FROM pg_stat_activity AS a
   WHERE a.datname = current_database() AND a.xact_start < now() - $1 * interval '1 ms'
     AND EXISTS (
       SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation AND c.relnamespace = to_regnamespace('hawser_data')
        WHERE l.pid = a.pid AND l.granted AND c.relname ~ '^outbox_[0-9]+$'
     )
   ORDER BY a.xact_start`;

/** Greatest number of schedules that findings name. */
const mostSchedules = 10;

interface Status {
  readonly kind: "nats" | "peer";
  readonly waiting: number;
  readonly hasMore: boolean;
  readonly oldestFor: string | null;
  readonly oldestSeconds: number | null;
  /** Null for peers. */
  readonly savedSeconds: number | null;
  readonly overdueSeconds: number | null;
}

interface Writer {
  readonly pid: number;
  readonly application: string | null;
  readonly state: string | null;
  readonly seconds: number;
}

/** Checks of the outbox, in the order in which they run. */
export function outboxChecks(facts: Facts): Check[] {
  return [
    catalogCheck("outbox", (signal) => outbox(facts, signal), {
      needs: ["version"],
      explainedBy: ["leader", "nats", "nats-server", "gateway"],
      timeoutMs: catalogCheckMs * 2,
    }),
    catalogCheck("outbox-segments", () => segments(facts), { needs: ["version"] }),
    catalogCheck("schedules", () => schedules(facts), { needs: ["version"], explainedBy: ["outbox"] }),
  ];
}

async function outbox(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  if (!(await facts.mayRead(views.outboxStatus))) {
    return { notChecked: `this login may not read ${views.outboxStatus}: GRANT hawser_viewer to it` };
  }
  const limit = maxOutboxWaitMs / 1000;
  const rows = await facts.rows<Status>(statusSql);
  const findings: Finding[] = [];
  for (const status of rows) {
    const { kind, oldestSeconds, overdueSeconds } = status;
    if (Math.max(oldestSeconds ?? 0, overdueSeconds ?? 0) <= limit) continue;
    if (kind === "peer") findings.push(nobodyQueues(status));
    else findings.push((await isLed(facts, signal)) === false ? nobodyRelays(status) : heldUp(status));
  }
  const total = rows.find(({ kind }) => kind === "nats")?.waiting ?? 0;
  return {
    findings,
    ...(findings.length === 0 && { seen: `${total} messages wait, none for longer than ${ago(limit)}` }),
  };
}

function what({ waiting, hasMore, oldestSeconds, oldestFor, overdueSeconds }: Status): string {
  const destination = oldestFor === null ? "" : ` (subject ${JSON.stringify(oldestFor)})`;
  if (oldestSeconds === null) return `a message of the outbox was due ${ago(overdueSeconds ?? 0)} ago`;
  return `${hasMore ? "at least " : ""}${waiting} ${waiting === 1 ? "message of the outbox waits" : "messages of the outbox wait"}, the oldest for ${ago(oldestSeconds)}${destination}`;
}

function nobodyRelays(status: Status): Finding {
  return {
    severity: "error",
    what: `no process relays the outbox for NATS: ${what(status)}`,
    remedy: "Start `hawser serve`; if it runs, its log says why it does not lead",
  };
}

function nobodyQueues({ overdueSeconds }: Status): Finding {
  return {
    severity: "error",
    what: `a message for peers was due ${ago(overdueSeconds ?? 0)} ago, and no process moves it to the queue`,
    remedy: "Start `hawser serve` or a peer; if one runs, its log has the cause",
  };
}

function heldUp(status: Status): Finding {
  const savedSeconds = status.savedSeconds ?? 0;
  const isMoving = savedSeconds <= maxOutboxWaitMs / 1000;
  const how = isMoving ? "others are relayed" : `nothing has been relayed for ${ago(savedSeconds)}`;
  return {
    severity: "warning",
    what: `${what(status)}, and ${how}`,
    remedy:
      "Check that NATS and the stream of that subject respond: `nats stream report`. The log of `hawser serve` names the retried messages; `hawser outbox status` shows the progress",
  };
}

async function segments(facts: Facts): Promise<Verdict> {
  const writers = await facts.rows<Writer>(writersSql, [maxOutboxWriterMs]);
  return {
    findings: writers.map(({ pid, application, state, seconds }) => ({
      severity: "warning",
      what: `the session ${pid}${application ? ` ("${application}")` : ""} has used the outbox in a transaction that has been open for ${ago(seconds)} (${state ?? "state unknown"}): messages before it cannot be removed`,
      remedy: `Let it commit or roll back, or end it: SELECT pg_terminate_backend(${pid})`,
    })),
    ...(writers.length === 0 && { seen: "no old transaction retains messages" }),
  };
}

async function schedules(facts: Facts): Promise<Verdict> {
  if (!(await facts.mayRead(queueViews.scheduleStatus))) {
    return { notChecked: `this login may not read ${queueViews.scheduleStatus}: GRANT hawser_viewer to it` };
  }
  const rows = await stuckSchedules((text, values) => facts.rows(text, values), mostSchedules);
  const findings = rows.map(({ name, role, problem, lateSeconds }): Finding => {
    const which = `the schedule ${JSON.stringify(name)} of the role ${JSON.stringify(role)}`;
    return problem === null
      ? {
          severity: "error",
          what: `${which} is late by ${ago(lateSeconds ?? 0)}: no process runs schedules`,
          remedy: "Start `hawser serve` or a peer; if one runs, its log has the cause",
        }
      : {
          severity: "warning",
          what: `${which} does not run: ${problem}`,
          remedy: `Call hawser.schedule for it again, with another expression, or end it: \`hawser schedules remove ${shellWord(name)}\``,
        };
  });
  return { findings, ...(rows.length === 0 && { seen: "each has its next occurrence" }) };
}
