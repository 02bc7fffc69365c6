/**
 * Asks Patroni for the name of its Postgres.
 *
 * The address comes from a role that may define the NATS server, and anything may answer there: so little is read, for a
 * short time, from that host alone, and nothing but the name is passed on.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { type Logger, ProblemLog } from "../../runtime/index.js";

const { patroniMaxBytes } = bridgeConstants;

/** The name, or why there is none: without the address, and without anything of the answer. */
type PatroniAnswer = { readonly name: string } | { readonly problem: string };

/** Why an answer is of no use. */
class Unusable extends Error {}

/**
 * Asks by GET, and follows no redirect. The status of the answer means nothing: Patroni answers 503 with the same JSON where
 * the question is whether it is the primary, and it is not. Does not reject.
 *
 * @param signal ends it; the answer is a problem then
 */
async function requestPatroniName(url: string, timeoutMs: number, signal: AbortSignal): Promise<PatroniAnswer> {
  const late = AbortSignal.timeout(timeoutMs);
  // What is not read of the answer is not sent any more when this ends.
  const done = new AbortController();
  try {
    if (!URL.canParse(url)) throw new Unusable("the address is not valid");
    const response = await fetch(url, {
      redirect: "error",
      headers: { accept: "application/json" },
      signal: AbortSignal.any([signal, late, done.signal]),
    });
    return { name: nameIn(await readBody(response), response.status) };
  } catch (error) {
    return { problem: late.aborted ? `there was no whole answer within ${timeoutMs} ms` : problemOf(error) };
  } finally {
    done.abort();
  }
}

async function readBody({ body }: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > patroniMaxBytes) throw new Unusable(`the answer is longer than ${patroniMaxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function nameIn(body: Uint8Array, status: number): string {
  let answer: unknown;
  try {
    answer = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new Unusable(`the answer, of status ${status}, is not JSON`);
  }
  const name = (answer as { readonly patroni?: { readonly name?: unknown } | null } | null)?.patroni?.name;
  if (typeof name === "string" && name !== "") return name;
  throw new Unusable(`the answer, of status ${status}, has no name at .patroni.name`);
}

/** Words of our own, or the code or the words of the network: `fetch` itself would quote the address. */
function problemOf(error: unknown): string {
  if (error instanceof Unusable) return error.message;
  const cause = error instanceof Error ? (error.cause as { readonly code?: unknown; readonly message?: unknown }) : {};
  return `the request failed: ${cause?.code ?? cause?.message ?? "it could not be made"}`;
}

/** Asks Patroni for the name of this Postgres. The same problem is logged once, not at each question. */
export class PatroniName {
  readonly #problems: ProblemLog;
  readonly #timeoutMs: number;

  /** @param timeoutMs for the whole answer; default `patroniTimeoutMs` of the spec */
  constructor(logger: Logger, timeoutMs: number = bridgeConstants.patroniTimeoutMs) {
    this.#problems = new ProblemLog(logger);
    this.#timeoutMs = timeoutMs;
  }

  /** The name; null where it cannot be had. Does not reject. @param url the option `patroni_url` */
  async ask(url: string, signal: AbortSignal): Promise<string | null> {
    const answer = await requestPatroniName(url, this.#timeoutMs, signal);
    if (signal.aborted) return null;
    if ("name" in answer) {
      this.#problems.clear();
      return answer.name;
    }
    const patroni = originOf(url);
    const { problem } = answer;
    this.#problems.tell(
      `${patroni} ${problem}`,
      "Patroni does not tell the name of this Postgres, and role-change notices are without it: check Patroni, or " +
        "the option patroni_url",
      { patroni, problem },
    );
    return null;
  }
}

/** Without path and query, in which a secret may be. */
function originOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).origin : undefined;
}
