/**
 * A host beside this one: a network namespace with a wire to here, which can die without a word.
 */
import { spawnSync } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { systemProgram } from "./system-program.js";

/** The network between the two. */
export const prefixBits = 30;

/** A host of its own for some processes. Disposing removes it. */
export class OtherHost implements Disposable {
  readonly #name: string;
  /** The addresses of this host and of the other one, on the wire between them. */
  readonly here: string;
  readonly there: string;

  private constructor() {
    const id = randomBytes(3).toString("hex");
    this.#name = `hawser-${id}`;
    // The range 198.18.0.0/15 is reserved for benchmarks (RFC 2544).
    const network = `198.${randomInt(18, 20)}.${randomInt(256)}`;
    const first = randomInt(64) * 4;
    this.here = `${network}.${first + 1}`;
    this.there = `${network}.${first + 2}`;
  }

  /** Undefined where this user may not make network namespaces. */
  static make(): OtherHost | undefined {
    const host = new OtherHost();
    const name = host.#name;
    const made = spawnSync(systemProgram("ip"), ["netns", "add", name], { encoding: "utf8" });
    if (made.status !== 0) {
      console.log(`ip netns add is not permitted here: ${made.stderr.trim()}`);
      return undefined;
    }
    try {
      const wire = `hw${name.slice(-6)}`;
      ip("link", "add", `${wire}a`, "type", "veth", "peer", "name", `${wire}b`, "netns", name);
      ip("address", "add", `${host.here}/${prefixBits}`, "dev", `${wire}a`);
      ip("link", "set", `${wire}a`, "up");
      ip("-n", name, "address", "add", `${host.there}/${prefixBits}`, "dev", `${wire}b`);
      ip("-n", name, "link", "set", `${wire}b`, "up");
      ip("-n", name, "link", "set", "lo", "up");
    } catch (error) {
      host[Symbol.dispose]();
      throw error;
    }
    return host;
  }

  /** Command line prefix that starts a program on the host. */
  get launcher(): [string, ...string[]] {
    return [systemProgram("ip"), "netns", "exec", this.#name];
  }

  /** From now on nothing that comes from there arrives here: no bytes, no acknowledgements, no resets. */
  die(): void {
    ip("-n", this.#name, "route", "add", "blackhole", `${this.here}/32`);
  }

  [Symbol.dispose](): void {
    // The wire goes with it.
    ip("netns", "delete", this.#name);
  }
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync(systemProgram("ip"), args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr.trim()}`);
}
