/**
 * Databases of a run: a base template with Hawser's objects, a template for each set of migrations, and copies of them
 * for tests.
 */
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { HawserError } from "../../foundation/errors/index.js";
import { install } from "../../operating/installation/index.js";
import { withClient } from "./user-client.js";

/** Copy of a template. */
interface CopiedDatabase {
  readonly name: string;
  /** URL of the server itself, without a relay. */
  readonly url: string;
  drop(): Promise<void>;
}

interface Template {
  readonly name: string;
  /** Resolves when the template is prepared (true) or has failed (false). */
  readonly prepared: Promise<boolean>;
  readonly finish: (isPrepared: boolean) => void;
}

/** Databases that a run has created in a Postgres. */
export class Databases {
  /** Name of the base template, and prefix of all other names. */
  readonly #prefix = `hawser_test_${randomBytes(4).toString("hex")}`;
  readonly #serverUrl: string;
  /** Created databases, each with its executor login. */
  readonly #made = new Map<string, string | undefined>();
  readonly #templates = new Map<string, Template>();
  #count = 0;
  /** True if the SQL functions for NATS are installed. */
  #hasNats = false;

  /** @param serverUrl URL of a role that may create databases */
  constructor(serverUrl: string) {
    this.#serverUrl = serverUrl;
  }

  /** Creates the base template. @throws the errors of `install` */
  async prepare(log: (line: string) => void): Promise<void> {
    const name = this.#prefix;
    await this.#onServer(`CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'UTF8'`);
    this.#made.set(name, undefined);
    const { nats, missingPrivileges } = await install({ databaseUrl: this.#urlOf(name) });
    this.#hasNats = (nats?.functions ?? 0) > 0;
    for (const { what, meaning } of missingPrivileges) log(`Left out: ${what}; ${meaning}`);
    if (this.#hasNats) {
      const { rows } = await on(this.#urlOf(name), "SELECT user_name FROM hawser_bridge_data.executor_login");
      this.#made.set(name, rows[0].user_name);
    }
    await this.#close(name);
  }

  /**
   * Requests the template of a key. The first caller prepares it; the others wait.
   *
   * @returns the URL of the database to prepare, or null if it is prepared
   */
  async template(key: string): Promise<string | null> {
    for (;;) {
      const known = this.#templates.get(key);
      if (known === undefined) break;
      if (await known.prepared) return null;
    }
    let finish: Template["finish"] = () => undefined;
    const prepared = new Promise<boolean>((resolve) => (finish = resolve));
    const name = `${this.#prefix}_t${++this.#count}`;
    this.#templates.set(key, { name, prepared, finish });
    try {
      await this.#onServer(`CREATE DATABASE ${name} TEMPLATE ${this.#prefix}`);
    } catch (error) {
      await this.prepared(key, false);
      throw error;
    }
    this.#made.set(name, undefined);
    return this.#urlOf(name);
  }

  /** Reports that the template is prepared, or that it has failed and the next caller must prepare it. */
  async prepared(key: string, isPrepared: boolean): Promise<void> {
    const template = this.#templates.get(key);
    if (template === undefined) return;
    try {
      if (isPrepared) await this.#close(template.name);
      else {
        this.#templates.delete(key);
        await this.#drop(template.name);
      }
      template.finish(isPrepared);
    } catch (error) {
      this.#templates.delete(key);
      template.finish(false);
      throw error;
    }
  }

  /** @param key null for the base template */
  async copy(key: string | null): Promise<CopiedDatabase> {
    const template = key === null ? this.#prefix : this.#templates.get(key)?.name;
    if (template === undefined) throw new HawserError("dev_server_failed", `no template was prepared for ${key}`);
    const name = `${this.#prefix}_${++this.#count}`;
    await this.#onServer(`CREATE DATABASE ${name} TEMPLATE ${template}`);
    const executor = `hawser_executor_${randomBytes(6).toString("hex")}`;
    this.#made.set(name, this.#hasNats ? executor : undefined);
    const url = this.#urlOf(name);
    if (this.#hasNats) {
      // A role belongs to the whole server: a test must not change the login that runs another test's functions.
      await on(url, "UPDATE hawser_bridge_data.executor_login SET user_name = $1", [executor]);
      await on(url, makeExecutor);
    }
    return { name, url, drop: () => this.#drop(name) };
  }

  /** Defines the NATS server in a database with the SQL functions. */
  async defineNats(url: string, { host, port }: { readonly host: string; readonly port: number }): Promise<void> {
    if (!this.#hasNats) return;
    await on(url, "SELECT hawser.set_nats_server($1)", [JSON.stringify({ host, port: String(port) })]);
  }

  /** Drops all created databases and roles. */
  async dropAll(): Promise<void> {
    for (const name of [...this.#made.keys()].reverse()) await this.#drop(name);
  }

  /** Ends the sessions of a database and refuses new ones, because Postgres cannot copy a database with sessions. */
  async #close(name: string): Promise<void> {
    await this.#onServer(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await this.#onServer(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
  }

  async #drop(name: string): Promise<void> {
    const executor = this.#made.get(name);
    await this.#onServer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    if (executor !== undefined) await this.#onServer(`DROP ROLE IF EXISTS ${executor}`);
    this.#made.delete(name);
  }

  async #onServer(sql: string): Promise<void> {
    await on(this.#serverUrl, sql);
  }

  #urlOf(database: string): string {
    const url = new URL(this.#serverUrl);
    url.pathname = `/${database}`;
    return url.href;
  }
}

/**
 * Creates the executor login of a copied database in the same way as the installation. Installing anew would take
 * longer than copying.
 */
const makeExecutor = `DO $$
DECLARE
  login record;
BEGIN
  SELECT user_name, password INTO STRICT login FROM hawser_bridge_data.executor_login;
  EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L IN ROLE hawser_executor', login.user_name, login.password);
  EXECUTE format('GRANT %I TO hawser_bridge', login.user_name);
END
$$`;

/** Runs a statement on a new connection. */
export async function on(url: string, sql: string, values: unknown[] = []): Promise<pg.QueryResult> {
  return await withClient(url, (client) => (values.length === 0 ? client.query(sql) : client.query(sql, values)));
}
