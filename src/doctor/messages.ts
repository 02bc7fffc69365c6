/** Dead letters, streams with gaps, and messages that have waited for a long time. */
import { views } from "../../generated/ts/rows/nats.js";
import { tables } from "../../generated/ts/rows/peer.js";
import { ago } from "../errors/index.js";
import { nameHeldSql, waitingMessagesSql } from "../store/index.js";
import { catalogCheck } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

/** Age from which a waiting message of a peer is reported. */
const maxStoredMessageMs = 3_600_000;

const deadSql = `
  SELECT d.origin, count(*)::float8 AS count, extract(epoch FROM now() - min(d.created_at))::float8 AS "oldestSeconds",
         mode() WITHIN GROUP (ORDER BY d.error_code) AS "commonCode"
    FROM ${tables.deadLetter} AS d GROUP BY 1 ORDER BY 1`;

/**
 * Query: stored messages above the cursor of their channel; rows at or below it are handled already. The oldest message
 * of a channel has the lowest number.
 */
const waitingSql = `
  SELECT w.*, CASE WHEN NOT pg_is_in_recovery() THEN ${nameHeldSql("w.listener")} END AS running FROM (
    SELECT coalesce(m.owner, m.listener_name) AS listener, sum(${waitingMessagesSql})::float8 AS count,
           extract(epoch FROM now() - min(s.stored_at))::float8 AS "oldestSeconds"
      FROM ${tables.storedMessage} AS s
      JOIN ${tables.channel} AS m USING (channel_id)
      LEFT JOIN ${tables.cursor} AS c USING (channel_id)
     WHERE (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
     GROUP BY 1
    HAVING min(s.stored_at) < now() - $1 * interval '1 ms'
  ) AS w ORDER BY w.listener COLLATE "C"`;

interface Dead {
  readonly origin: string;
  readonly count: number;
  readonly oldestSeconds: number;
  readonly commonCode: string;
}

interface Waiting {
  readonly listener: string;
  readonly count: number;
  readonly oldestSeconds: number;
  /** Null on a replica, where no session holds a name. */
  readonly running: boolean | null;
}

interface StreamState {
  readonly name: string;
  readonly stream: string;
  readonly problem: string | null;
  readonly paused: boolean;
  readonly missing: number;
  readonly reason: string | null;
  readonly missingSeconds: number | null;
}

const streamsSql = `
  SELECT s.name, s.stream, s.problem, s.paused, s.missing::float8 AS missing, s.missing_reason AS reason,
         extract(epoch FROM now() - s.missing_at)::float8 AS "missingSeconds"
    FROM ${views.streamStatus} AS s ORDER BY s.name COLLATE "C"`;

/** Checks of dead letters, streams and stored messages, in the order in which they run. */
export function messageChecks(facts: Facts): Check[] {
  return [
    catalogCheck("dead-letters", () => deadLetters(facts), { needs: ["version"] }),
    catalogCheck("streams", () => streams(facts), { needs: ["version"] }),
    catalogCheck("stored-messages", () => storedMessages(facts), { needs: ["version"] }),
  ];
}

async function deadLetters(facts: Facts): Promise<Verdict> {
  const rows = await facts.rows<Dead>(deadSql);
  return {
    findings: rows.map(({ origin, count, oldestSeconds, commonCode }) => ({
      severity: "warning",
      what: `${count} ${count === 1 ? "message of a" : "messages of"} ${origin}${count === 1 ? " was" : "s were"} dead-lettered, the oldest ${ago(oldestSeconds)} ago, most with ${commonCode}`,
      remedy: `hawser dead list --origin ${origin}; fix the cause, then \`hawser dead retry\` or \`discard\``,
    })),
    ...(rows.length === 0 && { seen: "no message was dead-lettered" }),
  };
}

async function streams(facts: Facts): Promise<Verdict> {
  const rows = await facts.rows<StreamState>(streamsSql);
  const findings = rows.flatMap(({ name, stream, problem, paused, missing, reason, missingSeconds }): Finding[] => {
    const what = `the subscription "${name}" to the stream ${stream}`;
    return [
      ...(problem === null
        ? []
        : [
            {
              severity: paused ? ("error" as const) : ("warning" as const),
              what: `${what} has stopped: ${problem}`,
              remedy: paused
                ? `SELECT nats_seek_stream('${name}', …), with 'all', a sequence number or a time; then find the missing messages`
                : "Fix the cause; the subscription then continues by itself",
            },
          ]),
      ...(reason === null
        ? []
        : [
            {
              severity: "warning" as const,
              what:
                reason === "recreated"
                  ? `${what}: the stream was recreated ${ago(missingSeconds ?? 0)} ago, and the unread messages of the old stream are missing`
                  : `${what}: ${missing} messages were removed before they could be read (${reason}), the last ones ${ago(missingSeconds ?? 0)} ago`,
              remedy: `SELECT * FROM hawser.stream_status; keep messages longer in the stream; nats_seek_stream('${name}', …) ends this notice`,
            },
          ]),
    ];
  });
  return {
    findings,
    ...(findings.length === 0 && { seen: `${rows.length} subscriptions to streams, and no missing messages` }),
  };
}

async function storedMessages(facts: Facts): Promise<Verdict> {
  const rows = await facts.rows<Waiting>(waitingSql, [maxStoredMessageMs]);
  return {
    findings: rows.map(
      ({ listener, count, oldestSeconds, running }): Finding => ({
        severity: "warning",
        what: `${count} message${count === 1 ? "" : "s"} of peers wait for "${listener}", the oldest for ${ago(oldestSeconds)}${running === null ? "" : `, and it ${running ? "runs" : "does not run"}`}`,
        remedy:
          running === false
            ? `Start it, or hand over its messages: hawser peers reassign ${listener} …`
            : `Check its handler and its log: hawser pending --name ${listener}`,
      }),
    ),
    ...(rows.length === 0 && {
      seen: `no message of a peer waits for longer than ${ago(maxStoredMessageMs / 1000)}`,
    }),
  };
}
