/** Tools of `hawser mcp`: what each is asked, and what it answers. All of them only read. */
import { limits as rules } from "../../../generated/ts/rules/peer/catalog.js";
import { HawserError } from "../../foundation/errors/index.js";
import { job } from "../../jobs-and-peers/queue/enqueue/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { shownPayload } from "../../protobuf/typed/index.js";
import { examinedDeadLetters } from "../console/index.js";
import { type DoctorOptions, doctor as examine } from "../doctor/index.js";
import {
  type DeadLetterEntry,
  type DeadLetterFilter,
  deadLetterCauses,
  deadLetterIdOf,
  deadLetters,
  listPending,
  type WholeDeadLetter,
  why,
  withCommandDatabase,
} from "../operate/index.js";
import { sqlClientOf } from "./enqueue.js";
import { maxPayloadBytes, rowsThatFit, shownText, untrusted, withoutHidden } from "./mcp-answer.js";
import { idOf } from "./options.js";

/** Time limit of each statement, in ms. */
const statementTimeoutMs = 10_000;

/** JSON Schema of a tool's arguments. */
interface InputSchema {
  readonly type: "object";
  readonly properties: Readonly<Record<string, object>>;
  readonly required?: string[];
  readonly additionalProperties: false;
}

/** Tool that an agent can call. */
export interface McpTool {
  readonly title: string;
  readonly description: string;
  readonly inputSchema: InputSchema;
  /**
   * Answers a call.
   *
   * @param given arguments that fit `inputSchema`
   * @throws HawserError `invalid_argument`, and those of `withCommandDatabase`
   */
  answer(given: Readonly<Record<string, unknown>>): Promise<object>;
}

const id = {
  type: "string",
  pattern: "^[1-9][0-9]{0,18}$",
  description: 'Id of the job, as its enqueue returned it, in digits: "17"',
};
const text = (description: string) => ({ type: "string", minLength: 1, maxLength: 1_000, description });
const limit = { type: "integer", minimum: 1, maximum: 100, description: "Maximum number of rows. Default 20" };
const defaultLimit = 20;
const payload = (what: string) => ({
  type: "boolean",
  description: `True to show ${what}, if the login may read them. Default false`,
});

/** Tools by name, of one database. */
export function mcpTools(examination: DoctorOptions): Readonly<Record<string, McpTool>> {
  const reading = <T>(work: (database: Database) => Promise<T>): Promise<T> =>
    withCommandDatabase(examination.databaseUrl, work, {
      anyLogin: true,
      readOnly: true,
      limits: { statementTimeoutMs },
    });
  return {
    doctor: {
      title: "Problems and remedies",
      description:
        "Examines the installation: the database, its schema, roles and grants, the way to NATS, subscriptions, streams, schedules, " +
        "waiting messages and dead letters. Takes up to 30 seconds. Begin here if something is wrong",
      inputSchema: { type: "object", properties: {}, additionalProperties: false },
      answer: () => problems(examination),
    },
    why: {
      title: "Why a job waits",
      description:
        "Each condition under which a worker takes a job, which of them is not met, what holds the job, since when, and the remedy. " +
        "Give an id, or a topic, and perhaps a key, for the first job that waits",
      inputSchema: {
        type: "object",
        properties: { id, topic: text("The first waiting job of this topic"), key: text("With topic: of this key") },
        additionalProperties: false,
      },
      answer: (given) => reading((database) => reasons(database, given as ReasonsAsked)),
    },
    pending: {
      title: "Messages that wait",
      description:
        "Messages that are not handled, by topic, listener, group and sender, the oldest first, with their number, age and state: " +
        "whether somebody can take them",
      inputSchema: {
        type: "object",
        properties: { topic: text("Only this topic"), listener: text("Only for this listener"), limit },
        additionalProperties: false,
      },
      answer: (given) => reading((database) => waiting(database, given as WaitingAsked)),
    },
    dead: {
      title: "Dead letters",
      description:
        "Messages that will not be tried again. Without arguments, they are counted by cause, what is new first. With ids or a filter, or with " +
        'as "letters", each is listed, the newest first; that needs a login that may read dead letters',
      inputSchema: {
        type: "object",
        properties: {
          as: { enum: ["causes", "letters"], description: "Default: causes; with ids or a filter letters" },
          ids: {
            type: "array",
            minItems: 1,
            maxItems: 20,
            items: { type: "string", pattern: "^[1-9][0-9]{0,15}$" },
            description: "Ids of dead letters, in digits",
          },
          topic: text("Only of this topic or subject"),
          source: text("Only of this channel or subscribed function"),
          errorCode: text("Only with this error code, such as handler_failed"),
          origin: { enum: [...rules.DeadLetter.origin.values], description: "Only of this origin" },
          payload: payload("payloads, headers, stacks and failed attempts"),
          limit,
        },
        additionalProperties: false,
      },
      answer: (given) => reading((database) => givenUp(database, given as GivenUpAsked)),
    },
    job: {
      title: "What became of a job",
      description:
        "State of a job of the login's roles: whether it waits, runs, is dead, done or cancelled, its attempts and times. After its end " +
        "only if its result is kept",
      inputSchema: {
        type: "object",
        properties: { id, payload: payload("the progress and the result of its handler") },
        required: ["id"],
        additionalProperties: false,
      },
      answer: (given) => reading((database) => becameOf(database, given as unknown as JobAsked)),
    },
  };
}

async function problems(examination: DoctorOptions): Promise<object> {
  const { ok, findings, checks } = await examine(examination);
  const found = findings.map(({ check, severity, code, what, remedy }) => ({
    ...{ check, severity, code },
    untrusted: untrusted({ what, remedy }),
  }));
  const notChecked = checks
    .filter(({ outcome }) => outcome === "not_checked")
    .map(({ check, why, blockedBy }) => ({ check, blockedBy, untrusted: untrusted({ why }) }));
  const { rows, more } = await rowsThatFit(found, found.length);
  const left = await rowsThatFit(notChecked, more ? 0 : notChecked.length);
  return { ok, checks: checks.length, findings: rows, more, notChecked: left.rows };
}

interface ReasonsAsked {
  readonly id?: string;
  readonly topic?: string;
  readonly key?: string;
}

async function reasons(database: Database, asked: ReasonsAsked): Promise<object> {
  const { id, topic, key } = asked;
  if ((id === undefined) === (topic === undefined) || (key !== undefined && topic === undefined)) {
    const given = shownText(JSON.stringify(asked), 200);
    const remedy =
      'name one job by its id, as {"id": "17"}, or by a topic, and a key, as {"topic": "mails", "key": "7"}';
    throw new HawserError(
      "invalid_argument",
      `why of ${given}: takes an id or a topic, and a key with a topic; ${remedy}`,
    );
  }
  const conditions = await why(database, topic === undefined ? { id: idOf(id!) } : { topic, key });
  const held = conditions.filter(({ isMet }) => !isMet);
  return {
    id: conditions[0]?.jobId ?? null,
    held: held.map(({ condition, since, holder, explanation, remedy }) => ({
      ...{ condition, since },
      untrusted: untrusted({ holder, explanation, remedy }),
    })),
    met: conditions.filter(({ isMet }) => isMet).map(({ condition }) => condition),
    ...(held.length === 0 && { hint: "Nothing holds it: a worker that serves its topic takes it with its next look." }),
  };
}

interface WaitingAsked {
  readonly topic?: string;
  readonly listener?: string;
  readonly limit?: number;
}

async function waiting(database: Database, { topic, listener, limit = defaultLimit }: WaitingAsked): Promise<object> {
  const rows = await listPending(database, { topic, listener, limit: limit + 1 });
  const { rows: pending, more } = await rowsThatFit(
    rows.map(({ sender, listener, group, topic, servedBy, ...row }) => ({
      ...{ state: row.state, count: row.count, hasMore: row.hasMore, bytes: row.bytes, oldest: row.oldest },
      servedUntil: row.servedUntil,
      untrusted: untrusted({ topic, listener, group, sender, servedBy }),
    })),
    limit,
  );
  return { pending, more };
}

interface GivenUpAsked extends Pick<DeadLetterFilter, "topic" | "source" | "errorCode" | "origin"> {
  readonly as?: "causes" | "letters";
  readonly ids?: readonly string[];
  readonly payload?: boolean;
  readonly limit?: number;
}

async function givenUp(database: Database, asked: GivenUpAsked): Promise<object> {
  const { as, ids, payload = false, limit = defaultLimit, ...filter } = asked;
  const isFiltered = ids !== undefined || payload || Object.keys(filter).length > 0;
  if (as === "causes" && isFiltered) {
    const given = shownText(JSON.stringify(asked), 200);
    const remedy = 'leave out "as", or everything but "as" and "limit"';
    throw new HawserError("invalid_argument", `dead of ${given}: causes are counted of all dead letters; ${remedy}`);
  }
  if (as !== "letters" && !isFiltered) return await causes(database, limit);
  const letters = deadLetters(database);
  const found = await letters.list({ ...filter, ids: ids?.map(deadLetterIdOf), limit: limit + 1 });
  const whole = async function* (): AsyncGenerator<object | undefined> {
    // One at a time, because each may be as long as a message.
    for (const entry of found) {
      const letter = payload ? await letters.get(entry.id) : undefined;
      if (!payload || letter !== undefined) yield { ...letterOf(entry), ...(letter && contentsOf(letter)) };
    }
  };
  const { rows, more } = await rowsThatFit(whole(), limit);
  return { letters: rows, more };
}

async function causes(database: Database, limit: number): Promise<object> {
  const found = await deadLetterCauses(database, { examine: examinedDeadLetters, causes: limit + 1 });
  const { rows, more } = await rowsThatFit(
    found.causes.map(({ function: of, topic, errorCode, cause, ...row }) => ({
      ...row,
      untrusted: untrusted({ function: of, topic, errorCode, cause }),
    })),
    limit,
  );
  return { causes: rows, more, examined: found.examined, olderOnes: found.olderThanId !== undefined };
}

function letterOf(entry: DeadLetterEntry): object {
  const { role, source, sentAs, enqueuedBy, listener, worker, topic, errorCode, errorMessage, ...others } = entry;
  return {
    ...others,
    untrusted: untrusted({ topic, errorCode, errorMessage, source, sentAs, listener, worker, role, enqueuedBy }),
  };
}

/** What `payload` asks for, beside what {@link letterOf} tells. */
function contentsOf(letter: WholeDeadLetter): object {
  const { stack, headers, failures } = letter;
  const part = letter.payload.subarray(0, maxPayloadBytes);
  const shown = shownPayload(part, [], undefined, isCutText(letter.payload) ? "text" : "auto");
  return {
    untrusted: {
      ...(letterOf(letter) as { untrusted: object }).untrusted,
      ...untrusted({ stack }),
      payload: shownText(String(shown.payload), 2 * maxPayloadBytes),
      headers: headers.slice(0, 20).map((pair) => pair.map((each) => shownText(String(each), 300))),
      failures: failures.slice(-5).map(({ attempt, at, code, message }) => ({
        attempt,
        ...untrusted({ at, code, message }),
      })),
    },
    encoding: shown.encoding,
    ...(part.length < letter.payload.length && { payloadIsCut: true }),
  };
}

/** True for a text whose last shown character is cut, which would be taken for bytes. */
function isCutText(payload: Uint8Array): boolean {
  if (payload.length <= maxPayloadBytes) return false;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(payload.subarray(0, maxPayloadBytes), { stream: true });
    return true;
  } catch {
    return false;
  }
}

interface JobAsked {
  readonly id: string;
  readonly payload?: boolean;
}

async function becameOf(database: Database, { id, payload = false }: JobAsked): Promise<object> {
  const found = await job(sqlClientOf(database, "look for the job"), idOf(id));
  const { topic, listener, enqueuedBy, progress, result, error, ...others } = found;
  const value = (one: unknown): string | undefined =>
    JSON.stringify(one, (_name, each) => (typeof each === "string" ? withoutHidden(each) : each));
  return {
    id,
    ...others,
    untrusted: {
      ...untrusted({ topic, listener, enqueuedBy, errorCode: error?.code, errorMessage: error?.message }),
      ...(payload && untrusted({ progress: value(progress), result: value(result) })),
    },
  };
}
