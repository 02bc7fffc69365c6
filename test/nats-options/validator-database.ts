import pg from "pg";
import {
  natsForeignDataSql,
  natsOptionsFunctionsSql,
  natsOptionsGrantsSql,
} from "../../generated/ts/nats-options/index.js";
import type { OptionViolation } from "../../src/nats/connections/index.js";
import { testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";

/** Answer of both validators: the complete options, or the violation. */
export type Answer =
  | { readonly ok: true; readonly options: unknown }
  | { readonly ok: false; readonly violation: OptionViolation };

/** The part of the options that is known. */
export type Part = "whole" | "server" | "user_mapping" | "none";

/** The SQL that is made of a schema. */
interface OptionsSql {
  readonly functions: string;
  readonly grants: string;
  readonly foreignData: string;
}

const generatedSql: OptionsSql = {
  functions: natsOptionsFunctionsSql,
  grants: natsOptionsGrantsSql,
  foreignData: natsForeignDataSql,
};

/** A database of the test's own with the generated validator in it. */
export class ValidatorDatabase implements AsyncDisposable {
  readonly client: pg.Client;
  readonly #drop: () => Promise<void>;

  private constructor(client: pg.Client, drop: () => Promise<void>) {
    this.client = client;
    this.#drop = drop;
  }

  /** @param sql by default the generated one */
  static async create(sql = generatedSql): Promise<ValidatorDatabase> {
    const { url, drop } = await testDatabase({ migrated: false });
    return ValidatorDatabase.#install(url, drop, sql);
  }

  /** In a database with the collation and the case rules of an ICU locale; Postgres has them from 15 on. */
  static async createWithLocale(icuLocale: string): Promise<ValidatorDatabase> {
    const server = process.env["HAWSER_TEST_DATABASE_URL"]!;
    const name = `hawser_test_icu_${process.pid}`;
    const locale = `LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE '${icuLocale}'`;
    await onServer(server, `CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'UTF8' ${locale}`);
    const url = new URL(server);
    url.pathname = `/${name}`;
    return ValidatorDatabase.#install(url.href, () => onServer(server, `DROP DATABASE ${name} WITH (FORCE)`));
  }

  static async #install(
    url: string,
    drop: () => Promise<void>,
    { functions, grants, foreignData } = generatedSql,
  ): Promise<ValidatorDatabase> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query("CREATE SCHEMA hawser");
    await client.query(functions);
    await client.query(grants);
    // As `hawser init` makes it.
    await client.query("CREATE SCHEMA hawser_fdw; GRANT USAGE ON SCHEMA hawser_fdw TO PUBLIC");
    await client.query(foreignData);
    return new ValidatorDatabase(client, drop);
  }

  /** The answer of the SQL side to each set of options, in their order. */
  check(sets: readonly unknown[], part: Part = "whole"): Promise<Answer[]> {
    return this.checkText(JSON.stringify(sets), part);
  }

  /** The same for a JSON array as text. */
  async checkText(sets: string, part: Part = "whole"): Promise<Answer[]> {
    const { rows } = await this.client.query(
      `SELECT v.*, CASE WHEN v.sqlstate IS NULL AND $2 = 'whole' THEN hawser.nats_server_options(options) END AS complete
       FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS given (options, position),
         hawser.nats_server_options_violation(options, $2) AS v
       ORDER BY position`,
      [sets, part],
    );
    return rows.map(
      ({ option_name: option, sqlstate, message, detail, hint, complete }): Answer =>
        sqlstate === null
          ? { ok: true, options: complete }
          : { ok: false, violation: { option, sqlstate, message, detail, hint } },
    );
  }

  /** The error that a statement ends with; undefined if it succeeds. What it did is undone. */
  async errorOf(...statements: readonly string[]): Promise<pg.DatabaseError | undefined> {
    await this.client.query("BEGIN");
    try {
      for (const statement of statements) {
        await this.client.query(statement);
      }
      return undefined;
    } catch (error) {
      if (error instanceof pg.DatabaseError) {
        return error;
      }
      throw error;
    } finally {
      await this.client.query("ROLLBACK");
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end();
    await this.#drop();
  }
}

/** `OPTIONS ("host" 'localhost')` */
export function optionsClause(options: Readonly<Record<string, string>>): string {
  const entries = Object.entries(options).map(
    ([name, value]) => `${pg.escapeIdentifier(name)} ${pg.escapeLiteral(value)}`,
  );
  return entries.length === 0 ? "" : `OPTIONS (${entries.join(", ")})`;
}

/** The version of the server under test, such as 180004. */
export async function serverVersion(): Promise<number> {
  const client = new pg.Client({ connectionString: process.env["HAWSER_TEST_DATABASE_URL"] });
  await client.connect();
  const { rows } = await client.query("SHOW server_version_num");
  await client.end();
  return Number(rows[0].server_version_num);
}
