/**
 * The databases of a run: a template that has what Hawser installs, one more for each set of migrations, and copies of them
 * for tests.
 */
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { HawserError } from "../errors/index.js";
import { install } from "../installation/index.js";
import { withClient } from "./user-client.js";

/** A copy. */
export interface CopiedDatabase {
  readonly name: string;
  /** Leads to the server itself. */
  readonly url: string;
  drop(): Promise<void>;
}

interface Template {
  readonly name: string;
  /** Settles when it can be copied, or never will be. */
  readonly prepared: Promise<boolean>;
  readonly settle: (isPrepared: boolean) => void;
}

/** What a run has made in a Postgres. */
export class Databases {
  /** The name of the base, and the beginning of all others. */
  readonly #prefix = `hawser_test_${randomBytes(4).toString("hex")}`;
  readonly #serverUrl: string;
  readonly #made = new Set<string>();
  readonly #roles = new Set<string>();
  readonly #templates = new Map<string, Template>();
  #count = 0;
  /** Whether SQL functions for NATS are installed. */
  #hasNats = false;

  /** @param serverUrl of a role that may make databases */
  constructor(serverUrl: string) {
    this.#serverUrl = serverUrl;
  }

  /** Makes the base. @throws what `install` throws */
  async prepare(tell: (line: string) => void): Promise<void> {
    const name = this.#prefix;
    await this.#onServer(`CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'UTF8'`);
    this.#made.add(name);
    const { nats, missingPrivileges } = await install({ databaseUrl: this.#urlOf(name) });
    this.#hasNats = (nats?.functions ?? 0) > 0;
    for (const { what, meaning } of missingPrivileges) tell(`Left out: ${what}; ${meaning}`);
    await this.#noteExecutor(name);
    await this.#close(name);
  }

  /**
   * Who asks first for a key prepares its template; the others wait for that.
   *
   * @returns the URL of the database to prepare, or null if it is prepared
   */
  async template(key: string): Promise<string | null> {
    for (;;) {
      const known = this.#templates.get(key);
      if (known === undefined) break;
      if (await known.prepared) return null;
    }
    let settle: Template["settle"] = () => undefined;
    const prepared = new Promise<boolean>((resolve) => (settle = resolve));
    const name = `${this.#prefix}_t${++this.#count}`;
    this.#templates.set(key, { name, prepared, settle });
    try {
      await this.#onServer(`CREATE DATABASE ${name} TEMPLATE ${this.#prefix}`);
    } catch (error) {
      await this.prepared(key, false);
      throw error;
    }
    this.#made.add(name);
    return this.#urlOf(name);
  }

  /** The template is prepared; or it is not, and whoever asks next tries again. */
  async prepared(key: string, isPrepared: boolean): Promise<void> {
    const template = this.#templates.get(key);
    if (template === undefined) return;
    try {
      if (isPrepared) await this.#close(template.name);
      else {
        this.#templates.delete(key);
        await this.#drop(template.name);
      }
      template.settle(isPrepared);
    } catch (error) {
      this.#templates.delete(key);
      template.settle(false);
      throw error;
    }
  }

  /** @param key null for the base */
  async copy(key: string | null): Promise<CopiedDatabase> {
    const template = key === null ? this.#prefix : this.#templates.get(key)?.name;
    if (template === undefined) throw new HawserError("dev_server_failed", `no template was prepared for ${key}`);
    const name = `${this.#prefix}_${++this.#count}`;
    await this.#onServer(`CREATE DATABASE ${name} TEMPLATE ${template}`);
    this.#made.add(name);
    const url = this.#urlOf(name);
    const executor = `hawser_executor_${randomBytes(6).toString("hex")}`;
    if (this.#hasNats) {
      // A role is the whole server's: no test is to change the login of another one's functions.
      await on(url, "UPDATE hawser.executor_login SET user_name = $1", [executor]);
      this.#roles.add(executor);
      await on(url, makeExecutor);
    }
    const drop = async (): Promise<void> => {
      await this.#drop(name);
      await this.#dropRole(executor);
    };
    return { name, url, drop };
  }

  /** Tells the SQL functions of a database which NATS server it is. */
  async defineNats(url: string, { host, port }: { readonly host: string; readonly port: number }): Promise<void> {
    if (!this.#hasNats) return;
    await on(url, "SELECT hawser.set_nats_server($1)", [JSON.stringify({ host, port: String(port) })]);
  }

  /** Drops everything that was made. */
  async dropAll(): Promise<void> {
    for (const name of [...this.#made].reverse()) await this.#drop(name);
    for (const role of this.#roles) await this.#dropRole(role);
  }

  async #noteExecutor(name: string): Promise<void> {
    if (!this.#hasNats) return;
    const { rows } = await on(this.#urlOf(name), "SELECT user_name FROM hawser.executor_login");
    for (const { user_name } of rows as { user_name: string }[]) this.#roles.add(user_name);
  }

  /** A database with sessions cannot be copied. */
  async #close(name: string): Promise<void> {
    await this.#onServer(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await this.#onServer(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
  }

  async #drop(name: string): Promise<void> {
    await this.#onServer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    this.#made.delete(name);
  }

  async #dropRole(role: string): Promise<void> {
    if (!this.#roles.delete(role)) return;
    await this.#onServer(`DROP ROLE IF EXISTS ${role}`);
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

/** As the installation makes it, whose own way takes longer than copying the database. */
const makeExecutor = `DO $$
DECLARE
  login record;
BEGIN
  SELECT user_name, password INTO STRICT login FROM hawser.executor_login;
  EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L IN ROLE hawser_executor', login.user_name, login.password);
  EXECUTE format('GRANT %I TO hawser_bridge', login.user_name);
END
$$`;

/** Runs a statement on a connection of its own. */
export async function on(url: string, sql: string, values: unknown[] = []): Promise<pg.QueryResult> {
  return await withClient(url, (client) => (values.length === 0 ? client.query(sql) : client.query(sql, values)));
}
