/** Dead letters, streams with gaps, and messages that have waited for a long time. */
import { views } from "../../generated/ts/rows/nats.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { ago, shellWord } from "../errors/index.js";
import { type BacklogState, backlogSql } from "../operate/index.js";
import { catalogCheck } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

/** Age from which a message is reported that nobody can take. */
const maxUnreadMs = 15_000;
/** Age from which a message is reported whose listener runs. */
const maxUnhandledMs = 300_000;
/** Greatest number of backlogs that findings name. */
const mostBacklogs = 20;
/** Number of dead letters that the check examines, the newest first. */
const examinedDeadLetters = 100_000;
/** Number of dead letters of one origin from which they are an error. */
const manyDeadLetters = 1_000;

const deadSql = `
  SELECT d.origin, sum(d.messages)::float8 AS count, extract(epoch FROM now() - min(d.oldest_at))::float8 AS "oldestSeconds",
         (array_agg(d.error_code ORDER BY d.messages DESC))[1] AS "commonCode"
    FROM hawser.dead_letter_counts($1) AS d GROUP BY 1 ORDER BY 1`;

/** Query: what has waited for too long, for a listener, or for any one of a topic and group. What is paused, or to be tried again later, does not count. */
const waitingSql = `
  WITH waiting AS (
    SELECT b.listener, b."group", CASE WHEN b.listener IS NULL THEN b.topic END AS topic, b.state, sum(b.count) AS count,
           bool_or(b."hasMore") AS "hasMore", extract(epoch FROM clock_timestamp() - min(b.oldest))::float8 AS "oldestSeconds"
      FROM (${backlogSql("$1")}) AS b GROUP BY 1, 2, 3, 4
  )
  SELECT w.*, (count(*) OVER ())::integer AS total FROM waiting AS w
   WHERE w."oldestSeconds" > CASE WHEN w.state IN ('stopped', 'unserved') THEN $2::float8 ELSE $3::float8 END AND coalesce(w.state, '') NOT IN ('retrying', 'paused')
   ORDER BY w."oldestSeconds" DESC, w.listener COLLATE "C", w.topic COLLATE "C" LIMIT $4`;

/** Words for the origins of dead letters. */
const sources = { peer: "peers", subscription: "subscriptions", outbox: "the outbox", queue: "the queue" } as const;

interface Dead {
  readonly origin: keyof typeof sources;
  readonly count: number;
  readonly oldestSeconds: number;
  readonly commonCode: string;
}

interface WaitingMessages {
  readonly listener: string | null;
  readonly group: string | null;
  /** Null if a listener has the messages. */
  readonly topic: string | null;
  /** Null on a standby, where no session holds a name. */
  readonly state: BacklogState | null;
  readonly count: number;
  readonly hasMore: boolean;
  readonly oldestSeconds: number;
  /** Number of rows without the limit. */
  readonly total: number;
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
  const rows = await facts.rows<Dead>(deadSql, [examinedDeadLetters]);
  const total = rows.reduce((sum, { count }) => sum + count, 0);
  const least = total < examinedDeadLetters ? "" : "at least ";
  return {
    findings: rows.map(({ origin, count, oldestSeconds, commonCode }) => ({
      severity: count < manyDeadLetters ? "warning" : "error",
      what: `${least}${count} ${count === 1 ? "message" : "messages"} of ${sources[origin]} ${count === 1 ? "was" : "were"} dead-lettered, the oldest ${ago(oldestSeconds)} ago, most with ${commonCode}`,
      remedy: `hawser dead list --origin ${origin}; fix the cause, then \`hawser dead retry\` or \`discard\``,
    })),
    ...(rows.length === 0 && { seen: "no message was dead-lettered" }),
  };
}

async function streams(facts: Facts): Promise<Verdict> {
  const rows = await facts.rows<StreamState>(streamsSql);
  const findings = rows.flatMap(({ name, stream, problem, paused, missing, reason, missingSeconds }): Finding[] => {
    const what = `the subscription "${name}" to the stream ${stream}`;
    const stopped: Finding = {
      severity: "error",
      what: `${what} has stopped: ${problem}`,
      remedy: paused
        ? `SELECT nats_seek_stream('${name}', …), with 'all', a sequence number or a time; then find the missing messages`
        : "Fix the cause; the subscription then continues by itself",
    };
    const lost: Finding = {
      severity: "error",
      what:
        reason === "recreated"
          ? `${what}: the stream was recreated ${ago(missingSeconds ?? 0)} ago, and the unread messages of the old stream are missing`
          : `${what}: ${missing} messages were removed before they could be read (${reason}), the last ones ${ago(missingSeconds ?? 0)} ago`,
      remedy: `SELECT * FROM hawser.stream_status; keep messages longer in the stream; nats_seek_stream('${name}', …) ends this notice`,
    };
    const overwritten: Finding = {
      severity: "note",
      what: `${what}: ${missing} messages were removed before they could be read, the last ones ${ago(missingSeconds ?? 0)} ago. The stream has max_msgs_per_subject, so newer messages of their subjects may have replaced them; a purge or another limit looks the same`,
      remedy: `Nothing, if the function needs only the newest messages of a subject; nats_seek_stream('${name}', …) ends this notice`,
    };
    const gone = reason === null ? [] : [reason === "overwritten" ? overwritten : lost];
    return [...(problem === null ? [] : [stopped]), ...gone];
  });
  return {
    findings,
    ...(findings.length === 0 && { seen: `${rows.length} subscriptions to streams, and no missing messages` }),
  };
}

async function storedMessages(facts: Facts): Promise<Verdict> {
  const values = [outboxConstants.countedMessages, maxUnreadMs / 1000, maxUnhandledMs / 1000, mostBacklogs];
  const rows = await facts.rows<WaitingMessages>(waitingSql, values);
  const findings = rows.map(waitingFinding);
  const rest = (rows[0]?.total ?? 0) - rows.length;
  if (rest > 0) {
    const severity = findings.some((each) => each.severity === "error") ? "error" : "warning";
    findings.push({
      severity,
      what: `messages wait for ${rest} more listeners, groups or topics`,
      remedy: "hawser pending",
    });
  }
  return {
    findings,
    ...(rows.length === 0 && {
      seen: `no message of a peer waits for longer than ${ago(maxUnhandledMs / 1000)}, or ${ago(maxUnreadMs / 1000)} without a listener`,
    }),
  };
}

function waitingFinding({ listener, group, topic, state, count, hasMore, oldestSeconds }: WaitingMessages): Finding {
  const place =
    listener !== null
      ? JSON.stringify(listener)
      : `the topic ${JSON.stringify(topic)}${group === null ? "" : `, for the group ${JSON.stringify(group)}`}`;
  const many = `${hasMore ? "at least " : ""}${count} message${count === 1 && !hasMore ? " waits" : "s wait"}`;
  const what = `${many} for ${place}, the oldest for ${ago(oldestSeconds)}`;
  const which = listener !== null ? `--name=${shellWord(listener)}` : `--topic=${shellWord(topic ?? "")}`;
  const reassign = listener !== null && `hawser peers reassign ${shellWord(listener)} …`;
  switch (state) {
    case "unserved":
      return {
        severity: "error",
        what: `${what}, and ${listener === null ? "no listener of it is known" : "no peer of this name ever ran"}`,
        remedy:
          listener === null
            ? `Start a peer that handles this topic. If its name is mistyped, correct it where messages are sent: hawser pending ${which}`
            : `Start it. If its name is mistyped, correct it where messages are sent, and hand these over: ${reassign}`,
      };
    case "stopped":
      return {
        severity: "error",
        what: `${what}, and ${listener === null ? "no listener of it runs" : "it does not run"}`,
        remedy:
          listener === null
            ? `Start one: hawser topics, hawser pending ${which}`
            : `Start it, or hand over its messages: ${reassign}`,
      };
    default:
      return {
        severity: "warning",
        what: `${what}${state === null ? "" : `, and ${listener === null ? "a listener of it" : "it"} runs`}`,
        remedy: `Check its handler and its log: hawser pending ${which}`,
      };
  }
}
