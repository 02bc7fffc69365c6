/** Leader of the bridge: whether a process leads, and whether it keeps up. */
import { setTimeout as delay } from "node:timers/promises";
import { views } from "../../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../../generated/ts/rows/peer.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { ago, plural } from "../../foundation/errors/index.js";
import { relationOidSql } from "../../foundation/postgres/index.js";
import { catalogCheck, catalogCheckMs } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

/** Pause between two readings of the leader's row. */
const leadLookMs = 200;
/** Lag of a leader from which it is reported. */
const maxLagMs = 10_000;
/** Longest silence of a leader, after which another process takes over. */
const { leaderExpiryMs } = bridgeConstants;

const leadSql = `
  SELECT l.epoch::text AS epoch, l.owner, l.beat::text AS beat, w.subscriptions::integer AS subscriptions,
         extract(epoch FROM clock_timestamp() - least(l.progress_at, w.oldest_saved_at,
           (SELECT min(to_timestamp(b.value::float8 / 1000)) FROM json_each_text(l.behind::json) AS b)
         ))::float8 AS "behindSeconds"
    FROM ${views.bridgeLead} AS l CROSS JOIN ${views.bridgeWork} AS w`;

interface Lead {
  readonly epoch: string;
  readonly owner: string | null;
  readonly beat: string;
  readonly subscriptions: number;
  readonly behindSeconds: number | null;
}

/**
 * Sessions and prepared transactions that block batches: they may hold a lock on the fence, and do not wait for a lock
 * themselves, as a process that takes over does. Sessions of the executor are excluded because batches lock the fence
 * too, and sessions that write under peers' names because they lock other rows of the table.
 */
const holderSql = `
  SELECT l.pid, a.usename::text AS role
    FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
   WHERE l.locktype = 'relation' AND l.relation = ${relationOidSql(peerTables.fence)} AND l.granted
     AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
     AND l.mode NOT IN ('AccessShareLock', 'SIReadLock')
     AND (l.pid IS NULL OR cardinality(pg_blocking_pids(l.pid)) = 0 AND pg_has_role(a.usesysid, 'hawser_bridge', 'MEMBER'))
     AND NOT EXISTS (SELECT FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
                      WHERE m.member = a.usesysid AND g.rolname = 'hawser_executor')
   LIMIT 1`;

interface Holder {
  /** Null for a prepared transaction. */
  readonly pid: number | null;
  readonly role: string | null;
}

/** Check that watches the leader's heartbeat for the longest silence allowed. */
export function leadCheck(facts: Facts): Check {
  return catalogCheck("leader", (signal) => lead(facts, signal), {
    needs: ["nats-from-sql", "nats-server"],
    explainedBy: ["gateway", "nats", "executor-login", "grants", "excess-privileges"],
    timeoutMs: leaderExpiryMs + catalogCheckMs,
  });
}

async function lead(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  if (!(await mayRead(facts))) {
    return { notChecked: `this login may not read ${views.bridgeLead}: GRANT hawser_viewer to it` };
  }
  if ((await read(facts)).subscriptions === 0) return { seen: "there are no subscriptions, so no leader is needed" };
  if ((await facts.rows<{ yes: boolean }>("SELECT pg_is_in_recovery() AS yes"))[0]!.yes) {
    return { notChecked: "a standby shows the leader late, or not at all: examine the primary" };
  }
  const { first, last, hasBeaten } = await watch(facts, signal);
  if (!hasBeaten) return { findings: [leaderless(first)] };
  const { owner, behindSeconds } = last;
  const findings: Finding[] =
    behindSeconds !== null && behindSeconds * 1000 > maxLagMs
      ? [behind(behindSeconds, (await facts.rows<Holder>(holderSql))[0])]
      : [];
  return {
    findings,
    seen: `the process ${owner ?? "without an id"} leads${behindSeconds === null ? "" : `, ${behindSeconds.toFixed(1)} s behind`}`,
  };
}

/** True if a process leads; undefined if this login cannot see it. */
export async function isLed(facts: Facts, signal: AbortSignal): Promise<boolean | undefined> {
  if (!(await mayRead(facts))) return undefined;
  return (await watch(facts, signal)).hasBeaten;
}

async function mayRead(facts: Facts): Promise<boolean> {
  return (await facts.mayRead(views.bridgeLead)) && (await facts.mayRead(views.bridgeWork));
}

async function read(facts: Facts): Promise<Lead> {
  return (await facts.rows<Lead>(leadSql))[0]!;
}

/** Reads the leader's row until there is a new heartbeat, or the time is over. */
async function watch(facts: Facts, signal: AbortSignal) {
  const first = await read(facts);
  const endAt = performance.now() + leaderExpiryMs;
  for (;;) {
    await delay(leadLookMs, undefined, { signal });
    const last = await read(facts);
    const hasBeaten = last.owner !== null && (last.beat !== first.beat || last.epoch !== first.epoch);
    if (hasBeaten || performance.now() >= endAt) return { first, last, hasBeaten };
  }
}

function leaderless({ owner, behindSeconds, subscriptions }: Lead): Finding {
  const last = behindSeconds === null ? "" : `, and made its last progress ${ago(behindSeconds)} ago`;
  const who =
    owner === null
      ? "no process leads"
      : `the last leader (${owner}) has sent no heartbeat for ${leaderExpiryMs} ms${last}`;
  return {
    severity: "error",
    what: `${who}: the functions of ${plural(subscriptions, "subscription")} are not called`,
    remedy: "Start `hawser serve`; if it runs, its log says why it does not lead",
  };
}

function behind(seconds: number, holder: Holder | undefined): Finding {
  const what = `the leader is ${seconds.toFixed(1)} s behind the messages that it receives`;
  if (holder === undefined) {
    return {
      severity: "warning",
      what,
      remedy:
        "Read the log of that process: its line `subscribed functions cannot be run now` has the SQLSTATE of the refusal, such as " +
        "53100 for a full disk. Without such a line, find the function that is slow, or waits for a lock: SELECT pid, state, wait_event_type, query FROM pg_stat_activity WHERE usename LIKE 'hawser_executor%'",
    };
  }
  const { pid, role } = holder;
  const session = pid === null ? "a prepared transaction" : `the session ${pid} of ${role ?? "a dropped role"}`;
  return {
    severity: "warning",
    what: `${what}: ${session} has a lock on ${peerTables.fence}, and each function waits for it`,
    remedy:
      pid === null
        ? "Find its gid in pg_prepared_xacts, and end it: COMMIT PREPARED or ROLLBACK PREPARED"
        : `End it: SELECT pg_terminate_backend(${pid})`,
  };
}
