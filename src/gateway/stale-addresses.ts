/**
 * Addresses of gateways that are gone: whoever was killed could not take its own away.
 */
import { connect } from "node:net";
import { isLoopback } from "../wire/index.js";

/** How long a machine may take to answer. */
const patienceMs = 1_000;

/** A machine that does not answer so many times in a row is gone, too. */
const silencesAllowed = 3;

interface Place {
  readonly host: string;
  readonly port: number;
}

type Outcome = "answers" | "refuses" | "is silent";

/** Tries the addresses of other gateways, and remembers which were silent before. */
export class StaleAddresses<T extends Place & { readonly startedAt: string }> {
  /** How often in a row, by address and the start of its gateway. */
  #silences = new Map<string, number>();

  /** @param listen where we listen ourselves */
  constructor(private readonly listen: Place) {}

  /**
   * Which of the addresses have nobody: those that refuse a connection now, or were silent too often. A loopback address
   * means Postgres's machine, so it is only tried by who listens at one himself, which is there.
   */
  async among(others: readonly T[], signal: AbortSignal): Promise<T[]> {
    const tried = others.filter(({ host }) => isLoopback(this.listen.host) || !isLoopback(host));
    const outcomes = await Promise.all(tried.map((place) => outcomeOf(place, signal)));
    if (signal.aborted) return [];
    const before = this.#silences;
    this.#silences = new Map();
    return tried.filter((place, position) => {
      const outcome = outcomes[position];
      if (outcome !== "is silent") return outcome === "refuses";
      const key = JSON.stringify([place.host, place.port, place.startedAt]);
      const silences = (before.get(key) ?? 0) + 1;
      this.#silences.set(key, silences);
      return silences >= silencesAllowed;
    });
  }
}

function outcomeOf({ host, port }: Place, signal: AbortSignal): Promise<Outcome> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: patienceMs, signal });
    const end = (outcome: Outcome): void => {
      socket.destroy();
      resolve(outcome);
    };
    socket.on("connect", () => end("answers"));
    socket.on("timeout", () => end("is silent"));
    socket.on("error", ({ code }: NodeJS.ErrnoException) => {
      if (code === "ECONNREFUSED") end("refuses");
      // Anything else, such as a name that is not known here, says nothing about Postgres's way to it.
      else end(code === "EHOSTUNREACH" || code === "ETIMEDOUT" ? "is silent" : "answers");
    });
  });
}
