/** Servers of a run, and the stacks of its tests. The keeper owns both. */
import { randomBytes } from "node:crypto";
import { HawserError } from "../../foundation/errors/index.js";
import { serve as startServer } from "../../nats/serve/index.js";
import { type DevStack, startDevStack } from "../dev/index.js";
import type { MadeStack, Side } from "./calls.js";
import { Databases, on } from "./databases.js";
import { accountsOf, configOf, emptyAccount, type NatsAccount, natsRules } from "./nats-accounts.js";
import { type Relay, relayTo } from "./relay.js";

type Log = (line: string) => void;

/** Resources of a test's stack. */
interface KeptStack {
  readonly relays: Readonly<Record<Side, Relay | undefined>>;
  readonly releases: readonly Release[];
}

/** Releases a resource. The last one that was acquired is released first. */
type Release = () => Promise<unknown> | undefined;

/** Servers and stacks of a run. */
export class KeptStacks {
  readonly #dev: DevStack;
  readonly #log: Log;
  readonly #databases: Databases;
  /** Undefined for an external NATS server, which all stacks share. */
  readonly #accounts: NatsAccount[] | undefined;
  readonly #stacks = new Map<string, KeptStack>();

  private constructor(dev: DevStack, databases: Databases, accounts: NatsAccount[] | undefined, log: Log) {
    this.#dev = dev;
    this.#databases = databases;
    this.#accounts = accounts;
    this.#log = log;
  }

  /** @throws HawserError `dev_server_failed`, and the errors of an installation; nothing is left behind then */
  static async start(log: Log): Promise<KeptStacks> {
    const accounts = process.env["HAWSER_NATS_URL"] ? undefined : accountsOf(randomBytes(12).toString("hex"));
    const dev = await startDevStack({ onProgress: log, natsConfig: accounts && configOf(accounts) });
    const databases = new Databases(dev.databaseUrl);
    const stacks = new KeptStacks(dev, databases, accounts, log);
    try {
      if (!process.env["HAWSER_DATABASE_URL"]) await withoutDisk(dev.databaseUrl);
      await databases.prepare(log);
      return stacks;
    } catch (error) {
      await stacks.stop();
      throw error;
    }
  }

  get databases(): Databases {
    return this.#databases;
  }

  /** @param template key of a prepared template; null for a database with Hawser's objects only */
  async open({ template, serve }: { readonly template: string | null; readonly serve: boolean }): Promise<MadeStack> {
    const releases: Release[] = [];
    try {
      const account = this.#takeAccount();
      if (account !== undefined) releases.push(() => this.#returnAccount(account));
      const database = await this.#databases.copy(template);
      releases.push(() => database.drop());
      const postgres = await relayTo(database.url, 5432, {});
      releases.push(() => postgres.relay?.close());
      const nats = await relayTo(this.#dev.natsUrl!, 4222, natsRules(account));
      releases.push(() => nats.relay?.close());
      const { hostname, port } = new URL(nats.url);
      await this.#databases.defineNats(database.url, { host: hostname, port: Number(port || 4222) });
      const serving = serve ? await startServer({ databaseUrl: postgres.url, listen: "127.0.0.1:0" }) : undefined;
      releases.push(() => serving?.stop());
      const relays = { postgres: postgres.relay, nats: nats.relay };
      this.#stacks.set(database.name, { relays, releases });
      return { id: database.name, databaseUrl: postgres.url, natsUrl: nats.url };
    } catch (error) {
      await releaseAll(releases);
      throw error;
    }
  }

  /** Drops a stack; does nothing if it has been dropped. */
  async drop(id: string): Promise<void> {
    const stack = this.#stacks.get(id);
    if (stack === undefined) return;
    this.#stacks.delete(id);
    // `hawser serve` could not stop in time without its servers.
    await stack.relays.postgres?.restore();
    await stack.relays.nats?.restore();
    await releaseAll(stack.releases);
  }

  /** @returns undefined for an external NATS server */
  #takeAccount(): NatsAccount | undefined {
    const account = this.#accounts?.shift();
    if (this.#accounts === undefined || account !== undefined) return account;
    throw new HawserError("busy", "256 stacks are open at the same time. Drop unused ones with drop().");
  }

  async #returnAccount(account: NatsAccount): Promise<void> {
    try {
      await emptyAccount(this.#dev.natsUrl!, account);
      this.#accounts?.push(account);
    } catch (error) {
      this.#log(`The account ${account.user} is not used again: ${(error as Error).message}`);
    }
  }

  /** @throws HawserError `not_supported` if no relay is possible */
  relay(id: string, side: Side): Relay {
    const stack = this.#stacks.get(id);
    if (stack === undefined) throw new HawserError("not_running", `the stack ${id} has been dropped`);
    const relay = stack.relays[side];
    if (relay !== undefined) return relay;
    const [name, variable] = side === "nats" ? ["NATS", "HAWSER_NATS_URL"] : ["Postgres", "HAWSER_DATABASE_URL"];
    throw new HawserError(
      "not_supported",
      `the connections to ${name} cannot be cut: the server of ${variable} is reached by TLS, by a socket file, or at ` +
        "several addresses. Name one address without TLS, or unset the variable.",
    );
  }

  /** Stops the servers. Databases and accounts in external servers are removed. */
  async stop(): Promise<void> {
    const isOurs = !process.env["HAWSER_DATABASE_URL"];
    try {
      if (isOurs) return;
      for (const id of [...this.#stacks.keys()]) await this.drop(id);
      await this.#databases.dropAll();
    } finally {
      await this.#dev.stop({ immediately: true });
    }
  }
}

async function releaseAll(releases: readonly Release[]): Promise<void> {
  for (const release of releases.toReversed()) await release();
}

/** Turns off durability, because the data of a run does not outlive it. */
async function withoutDisk(databaseUrl: string): Promise<void> {
  await on(databaseUrl, "ALTER SYSTEM SET fsync = off");
  await on(databaseUrl, "ALTER SYSTEM SET full_page_writes = off");
  await on(databaseUrl, "SELECT pg_reload_conf()");
}
