/**
 * Which NATS server the database defines, as `hawser serve` would read it, without changing anything.
 */
import {
  type CompleteNatsServerOptions,
  checkNatsServerOptions,
  type OptionViolation,
} from "../../generated/ts/nats-options/index.js";
import { tables } from "../../generated/ts/rows/nats.js";
import type { Facts } from "./facts.js";

/** What was read. */
export type NatsDefinition =
  | { readonly kind: "none" }
  /** This login may not read it. */
  | { readonly kind: "hidden" }
  | { readonly kind: "several"; readonly servers: readonly string[] }
  /** The credentials may stand in the user mapping of another login: nothing can be said about the whole. */
  | { readonly kind: "partial"; readonly mappedFor: string; readonly notifySubject: string | undefined }
  | { readonly kind: "wrong"; readonly violation: OptionViolation; readonly from: string }
  | { readonly kind: "complete"; readonly options: CompleteNatsServerOptions };

interface Row {
  readonly options: Record<string, unknown> | null;
  readonly server: string | null;
  readonly mapping: Record<string, unknown> | null;
  readonly mapped_for: string | null;
}

/** A foreign server that changed since it was last seen is what `hawser serve` takes next. */
const definitionSql = `
  SELECT CASE WHEN d.changed THEN f.options ELSE s.options END AS options,
         CASE WHEN d.changed THEN f.server_name ELSE s.server_name END AS server, f.mapping,
         (SELECT string_agg(CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, ', ' ORDER BY m.umuser)
            FROM pg_user_mappings AS m WHERE m.srvname = f.server_name AND m.usename <> current_user) AS mapped_for
    FROM ${tables.natsServer} AS s
    LEFT JOIN hawser.nats_foreign_servers() AS f ON true
    CROSS JOIN LATERAL (
      SELECT f.server_name IS NOT NULL AND (s.seen_server_name, s.seen_options) IS DISTINCT FROM (f.server_name, f.options) AS changed
    ) AS d`;

const maySql = `
  SELECT has_table_privilege('${tables.natsServer}', 'SELECT') AND has_function_privilege('hawser.nats_foreign_servers()', 'EXECUTE') AS may`;

/** Reads it. */
export async function readDefinition(facts: Facts): Promise<NatsDefinition> {
  const { servers } = await facts.natsState();
  if (servers.length > 1) return { kind: "several", servers: servers.map(({ name }) => name) };
  if (!(await facts.rows<{ may: boolean }>(maySql))[0]!.may) return { kind: "hidden" };
  const [row] = await facts.rows<Row>(definitionSql);
  if (row === undefined || row.options === null) return { kind: "none" };
  const { options, server, mapping, mapped_for: mappedFor } = row;
  if (server !== null && mapping === null && mappedFor !== null) {
    const subject = options["notify_subject"];
    return { kind: "partial", mappedFor, notifySubject: typeof subject === "string" ? subject : undefined };
  }
  const result = checkNatsServerOptions({ ...options, ...(server === null ? {} : mapping) });
  if (result.ok) return { kind: "complete", options: result.options };
  const from = server === null ? "hawser.set_nats_server" : `the foreign server "${server}"`;
  return { kind: "wrong", violation: result.violation, from };
}
