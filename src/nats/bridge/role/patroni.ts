/**
 * Client of Patroni's REST API that reads the name of the Postgres instance.
 *
 * The URL comes from a role that may define the NATS server, and any program may answer there. So the response is
 * limited in size and time, redirects are refused, and only the name is used.
 */
import { type Logger, ProblemLog } from "../../../foundation/runtime/index.js";

/** Time limit for Patroni's response. */
const patroniTimeoutMs = 2_000;
/** Maximum size of Patroni's response. */
const patroniMaxBytes = 64 * 1024;

/** Error of a response without a name. Its message may be logged. */
class UnusableResponse extends Error {}

/**
 * Requests the name. Ignores the status: to `/primary`, for example, Patroni answers 503 with the same JSON if the
 * instance is a standby.
 *
 * @throws UnusableResponse; errors of `fetch`
 */
async function requestName(url: string, signal: AbortSignal): Promise<string> {
  if (!URL.canParse(url)) throw new UnusableResponse("the URL is not valid");
  // Stops the transfer of a response that is not read to its end.
  const done = new AbortController();
  try {
    const response = await fetch(url, {
      redirect: "error",
      headers: { accept: "application/json" },
      signal: AbortSignal.any([signal, done.signal]),
    });
    return nameIn(await readBody(response), response.status);
  } finally {
    done.abort();
  }
}

async function readBody({ body }: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > patroniMaxBytes) throw new UnusableResponse(`the response is longer than ${patroniMaxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function nameIn(body: Uint8Array, status: number): string {
  let answer: unknown;
  try {
    answer = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new UnusableResponse(`the response, of status ${status}, is not JSON`);
  }
  const name = (answer as { readonly patroni?: { readonly name?: unknown } | null } | null)?.patroni?.name;
  if (typeof name === "string" && name !== "") return name;
  throw new UnusableResponse(`the response, of status ${status}, has no name at .patroni.name`);
}

/** Text for an error, without the message of `fetch`, which may contain the URL. */
function problemOf(error: unknown): string {
  if (error instanceof UnusableResponse) return error.message;
  const cause = error instanceof Error ? (error.cause as { readonly code?: unknown; readonly message?: unknown }) : {};
  return `the request failed: ${cause?.code ?? cause?.message ?? "it could not be sent"}`;
}

/** Reads the name of this Postgres from Patroni. Consecutive identical problems are logged once. */
export class PatroniName {
  readonly #problems: ProblemLog;
  readonly #timeoutMs: number;

  /** @param timeoutMs limit for the whole response; default `patroniTimeoutMs` */
  constructor(logger: Logger, timeoutMs: number = patroniTimeoutMs) {
    this.#problems = new ProblemLog(logger);
    this.#timeoutMs = timeoutMs;
  }

  /** Name of this Postgres; null if it cannot be read. Does not reject. @param url the option `patroni_url` */
  async read(url: string, signal: AbortSignal): Promise<string | null> {
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    try {
      const name = await requestName(url, AbortSignal.any([signal, timeout]));
      this.#problems.clear();
      return name;
    } catch (error) {
      if (signal.aborted) return null;
      const patroni = originOf(url);
      const late = `the response was not complete within ${this.#timeoutMs} ms`;
      const problem = timeout.aborted ? late : problemOf(error);
      this.#problems.tell(
        `${patroni} ${problem}`,
        "cannot read the name of this Postgres from Patroni, and role-change notices are sent without it; check Patroni, or " +
          "the option patroni_url",
        { patroni, problem },
      );
      return null;
    }
  }
}

/** Origin of a URL, which may be logged; path and query may contain a secret. */
function originOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).origin : undefined;
}
