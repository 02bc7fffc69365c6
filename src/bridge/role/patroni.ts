/**
 * Asks Patroni for the name of its Postgres.
 *
 * The address comes from a role that may define the NATS server, and anything may answer there: so little is read, for a
 * short time, from that host alone, and nothing but the name is passed on.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { type Logger, ProblemLog } from "../../runtime/index.js";

const { patroniMaxBytes, maxPatroniRedirects } = bridgeConstants;

/** The name, or why there is none: without the address, and without anything of the answer. */
type PatroniAnswer = { readonly name: string } | { readonly problem: string };

/** Why an answer is of no use. */
class Unusable extends Error {}

const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * Asks by GET. The status of the answer means nothing: Patroni answers 503 with the same JSON where the question is
 * whether it is the primary, and it is not. Does not reject.
 *
 * @param signal ends it; the answer is a problem then
 */
async function requestPatroniName(url: string, timeoutMs: number, signal: AbortSignal): Promise<PatroniAnswer> {
  const over = new AbortController();
  const end = (): void => over.abort();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    end();
  }, timeoutMs);
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  try {
    const response = await follow(addressOf(url), over.signal);
    return { name: nameIn(await readBody(response), response.status) };
  } catch (error) {
    return { problem: isLate ? `there was no whole answer within ${timeoutMs} ms` : problemOf(error) };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    // What was not read of the answer is not sent any more.
    end();
  }
}

function addressOf(url: string, base?: URL): URL {
  try {
    return new URL(url, base);
  } catch {
    throw new Unusable(
      base === undefined ? "the address is not valid" : "it redirects to an address that is not valid",
    );
  }
}

async function follow(first: URL, signal: AbortSignal): Promise<Response> {
  let url = first;
  for (let followed = 0; ; followed++) {
    const response = await fetch(url, { redirect: "manual", headers: { accept: "application/json" }, signal });
    const location = response.headers.get("location");
    if (location === null || !redirects.has(response.status)) return response;
    if (followed === maxPatroniRedirects) throw new Unusable(`it redirects more than ${maxPatroniRedirects} times`);
    const next = addressOf(location, url);
    if (!staysThere(url, next)) throw new Unusable("it redirects to another host, which is not followed");
    await response.body?.cancel();
    url = next;
  }
}

/** At the same host, and not from TLS to none. */
function staysThere(from: URL, to: URL): boolean {
  return to.hostname === from.hostname && (to.protocol === from.protocol || to.protocol === "https:");
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
