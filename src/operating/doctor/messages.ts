/** Dead letters, streams with gaps, and messages that have waited for a long time. */
import { views } from "../../../generated/ts/rows/nats.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { ago, shellWord } from "../../foundation/errors/index.js";
import { type BacklogState, backlogSql } from "../operate/index.js";
import { catalogCheck } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

/** Age from which a message is reported that nobody can take. */
export const maxUnreadMs = 5_000;
/** Age from which a message is reported if all places of its workers are taken, by handlers that take long. */
export const maxBehindMs = 5_000;
/** Time after which a handler takes long. */
const longHandlerMs = 2_000;
/** Greatest number of topics whose workers are asked whether their places are taken. */
const mostAsked = 10;
/** Age from which a message is reported whose listener runs. */
const maxUnhandledMs = 300_000;
/** Greatest number of backlogs of one kind that have a finding each; more are one finding, which names as many. */
const mostAlike = 3;
/** Number of dead letters that the check examines, the newest first. */
const examinedDeadLetters = 100_000;
/** Number of dead letters of one origin from which they are an error. */
const manyDeadLetters = 1_000;

const deadSql = `
  SELECT d.origin, sum(d.messages)::float8 AS count, extract(epoch FROM now() - min(d.oldest_at))::float8 AS "oldestSeconds",
         (array_agg(d.error_code ORDER BY d.messages DESC))[1] AS "commonCode"
    FROM hawser.dead_letter_counts($1) AS d GROUP BY 1 ORDER BY 1`;

/**
 * Query: what has waited for too long, for a listener, or for any one of a topic and group. What is paused, to be tried again later, or
 * held for others that go on, does not count. Of each kind the last to wait come first: what is new says what has changed.
 *
 * Parameters: rows that are counted, the ages in seconds from which messages wait without and with a listener, backlogs of a kind, the
 * age from which messages wait for places, the seconds from which a handler takes long, and topics that are asked for places.
 */
const waitingSql = `
  WITH waiting AS MATERIALIZED (
    SELECT b.listener, b."group", CASE WHEN b.listener IS NULL THEN b.topic END AS topic, b.state, sum(b.count) AS count,
           bool_or(b."hasMore") AS "hasMore", max(b."servedUntil") AS "servedUntil",
           (array_agg(b."servedBy" ORDER BY b."servedUntil" DESC NULLS LAST))[1] AS "servedBy", extract(epoch FROM clock_timestamp() - min(b.oldest))::float8 AS "oldestSeconds"
      FROM (${backlogSql("$1")}) AS b GROUP BY 1, 2, 3, 4
  ), busy AS MATERIALIZED (
    SELECT c.topic, s.*
      FROM (
        SELECT w.topic FROM waiting AS w
         WHERE w.state = 'running' AND w."oldestSeconds" > $5::float8 AND w."oldestSeconds" <= $3::float8 AND w.topic IS NOT NULL
         GROUP BY w.topic ORDER BY min(w."oldestSeconds") LIMIT $7
      ) AS c
     CROSS JOIN LATERAL (
       SELECT count(*)::integer AS "busyWorkers", max(a.oldest_ms) / 1000.0::float8 AS "busySeconds",
              (array_agg(a.name ORDER BY a.oldest_ms DESC NULLS LAST))[1] AS "busiestWorker"
         FROM hawser.worker_status(c.topic) AS a WHERE a.is_running
       HAVING bool_and(a.is_full) AND max(a.oldest_ms) / 1000.0 >= $6::float8
     ) AS s
  ), late AS (
    SELECT w.*, b."busyWorkers", b."busySeconds", b."busiestWorker", row_number() OVER (of_kind ORDER BY w."oldestSeconds", w.listener COLLATE "C", w.topic COLLATE "C") AS nth,
           (count(*) OVER of_kind)::integer AS alike, (sum(w.count) OVER of_kind)::float8 AS "alikeCount",
           bool_or(w."hasMore") OVER of_kind AS "alikeHasMore", max(w."oldestSeconds") OVER of_kind AS "alikeOldestSeconds"
      FROM waiting AS w
      LEFT JOIN busy AS b ON b.topic = w.topic AND w.state = 'running'
   WHERE b.topic IS NOT NULL AND w."oldestSeconds" > $5::float8 OR w."oldestSeconds" > CASE WHEN w.state IN ('stopped', 'unserved') THEN $2::float8 ELSE $3::float8 END AND coalesce(w.state, '') NOT IN ('retrying', 'paused', 'held')
    WINDOW of_kind AS (PARTITION BY w.state, w.listener IS NULL, b.topic IS NULL)
  )
  SELECT l.* FROM late AS l WHERE l.nth <= $4 ORDER BY l.alike > $4, l."oldestSeconds", l.listener COLLATE "C", l.topic COLLATE "C"`;

/** Words for the origins of dead letters. */
const sources = { subscription: "subscriptions", outbox: "the outbox", queue: "the queue" } as const;

interface Dead {
  readonly origin: keyof typeof sources;
  readonly count: number;
  readonly oldestSeconds: number;
  readonly commonCode: string;
}

interface WaitingMessages {
  readonly listener: string | null;
  readonly group: string | null;
  readonly servedBy: string | null;
  readonly servedUntil: Date | null;
  /** Null if a listener has the messages. */
  readonly topic: string | null;
  /** Null on a standby, where no session holds a name. */
  readonly state: BacklogState | null;
  readonly count: number;
  readonly hasMore: boolean;
  readonly oldestSeconds: number;
  /** Workers of the topic, of which none has a free place, and who has the longest handler, for how long; null if some has one. */
  readonly busyWorkers: number | null;
  readonly busySeconds: number | null;
  readonly busiestWorker: string | null;
  /** Number of backlogs of the same kind, with this one, and what waits in all of them. */
  readonly alike: number;
  readonly alikeCount: number;
  readonly alikeHasMore: boolean;
  readonly alikeOldestSeconds: number;
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

/** Message of NATS about a stream that is not there. */
const streamGone = "stream not found";

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
        : problem === streamGone
          ? `Create the stream again, by nats_create_stream or where it is defined: the subscription then goes on with its first message. Or end it: SELECT nats_unsubscribe_stream('${name}')`
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
  const values = [
    ...[queueConstants.countedMessages, maxUnreadMs / 1000, maxUnhandledMs / 1000, mostAlike],
    ...[maxBehindMs / 1000, longHandlerMs / 1000, mostAsked],
  ];
  const rows = await facts.rows<WaitingMessages>(waitingSql, values);
  const findings: Finding[] = [];
  const kinds = new Map<string, WaitingMessages[]>();
  for (const row of rows) {
    const kind = `${row.state} ${row.listener === null} ${row.busyWorkers === null}`;
    kinds.set(kind, [...(kinds.get(kind) ?? []), row]);
  }
  for (const same of kinds.values()) {
    if (same[0]!.alike <= mostAlike) findings.push(...same.map(waitingFinding));
    else findings.push(alikeFinding(same));
  }
  return {
    findings,
    ...(rows.length === 0 && {
      seen: `no message of a peer waits for longer than ${ago(maxUnhandledMs / 1000)}, or ${ago(maxUnreadMs / 1000)} without a listener`,
    }),
  };
}

/** Ends of sentences about many topics and about many listeners, by state. */
const manyStates: Partial<Record<BacklogState, readonly [topics: string, listeners: string]>> = {
  unserved: ["and no listener of them is known", "and no peers of these names ever ran"],
  stopped: ["and no listeners of them run", "and they do not run"],
  limited: ["and the limits of the topics are reached", "and limits are reached"],
  blocked: ["behind others of their flows that are dead letters, or were cancelled or discarded", "behind others"],
};

/** Makes one finding for many backlogs of one kind. @param newest the last of them to wait */
function alikeFinding(newest: readonly WaitingMessages[]): Finding {
  const [{ listener, state, alike, alikeCount, alikeHasMore, alikeOldestSeconds }] = newest as [WaitingMessages];
  const isTopics = listener === null;
  const names = newest.map((each) => `${JSON.stringify(each.listener ?? each.topic)} (${ago(each.oldestSeconds)})`);
  const isBusy = newest[0]!.busyWorkers !== null;
  const end = isBusy
    ? "and all places of their workers are taken"
    : ((state === null ? undefined : manyStates[state])?.[isTopics ? 0 : 1] ?? "and their listeners run");
  const many = `${alikeHasMore ? "at least " : ""}${alikeCount} messages wait for ${alike} ${isTopics ? "topics" : "listeners"}`;
  return {
    severity: waitingFinding(newest[0]!).severity,
    what: `${many}, ${end}. The last to wait are ${names.join(", ")}, the first one waits for ${ago(alikeOldestSeconds)}`,
    remedy: "hawser pending lists them, the oldest first, and hawser pending --topic … who sends",
  };
}

function waitingFinding(row: WaitingMessages): Finding {
  const { listener, group, topic, state, count, hasMore, oldestSeconds, servedBy, servedUntil } = row;
  const place =
    listener !== null
      ? JSON.stringify(listener)
      : `the topic ${JSON.stringify(topic)}${group === null ? "" : `, for the group ${JSON.stringify(group)}`}`;
  const many = `${hasMore ? "at least " : ""}${count} message${count === 1 && !hasMore ? " waits" : "s wait"}`;
  const what = `${many} for ${place}, the oldest for ${ago(oldestSeconds)}`;
  const which = listener !== null ? `--name=${shellWord(listener)}` : `--topic=${shellWord(topic ?? "")}`;
  if (row.busyWorkers !== null) {
    const { busyWorkers, busySeconds, busiestWorker } = row;
    const workers = busyWorkers === 1 ? "its worker" : `its ${busyWorkers} workers`;
    return {
      severity: "note",
      what: `${what}: all places of ${workers} are taken, and in ${JSON.stringify(busiestWorker)} a handler has been running for ${ago(busySeconds ?? 0)}`,
      remedy: `Make the handler faster, or start more workers: hawser pending ${which}. If it hangs, the log of the worker may say why; give it a timeoutMs`,
    };
  }
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
        what: `${what}, and ${listener === null ? "no listener of it runs" : "it does not run"}${
          servedBy === null || servedUntil === null
            ? ""
            : `: it was last served by ${JSON.stringify(servedBy)} until ${servedUntil.toISOString()}`
        }`,
        remedy:
          listener === null
            ? `Start one: hawser topics, hawser pending ${which}`
            : `Start it, or hand over its messages: ${reassign}`,
      };
    case "limited":
      return {
        severity: "warning",
        what: `${what}: the limits of the topic are reached`,
        remedy: `Raise its limits, or enqueue less; more workers do not help: hawser topics, hawser pending ${which}`,
      };
    case "blocked":
      return {
        severity: "error",
        what: `${many} for ${place} behind others of their flows, the oldest for ${ago(oldestSeconds)}, and one of these is a dead letter, or was cancelled or discarded`,
        remedy:
          "`hawser jobs list --state held` names them with what they are held for: `hawser dead retry` the dead letters, or `hawser jobs cancel --flow ID …`",
      };
    default:
      return {
        severity: "warning",
        what: `${what}${state === null ? "" : `, and ${listener === null ? "a listener of it" : "it"} runs`}`,
        remedy: `Check its handler and its log: hawser pending ${which}`,
      };
  }
}
