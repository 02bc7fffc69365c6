/** Privileges of the page's login, which decide what the page offers. */
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Login of the page, and what it may do. Postgres checks each action again. */
export interface Abilities {
  readonly login: string;
  readonly database: string;
  readonly canReadDeadLetters: boolean;
  readonly canRetry: boolean;
  readonly canDiscard: boolean;
  /** True if it may pause and resume topics. */
  readonly canPause: boolean;
  /** True if it may cancel messages. */
  readonly canCancel: boolean;
  /** True if it may read payloads of messages of its roles, and enqueue others like them. */
  readonly canCopy: boolean;
  /** True if it may run schedules of its roles. */
  readonly canSchedule: boolean;
}

const mayCall = (name: string): string => `EXISTS (
    SELECT FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace = n.oid AND p.proname = '${name}' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))`;

const sql = `
  SELECT current_user::text AS login, pg_catalog.current_database()::text AS database,
         coalesce((SELECT pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                     FROM pg_catalog.pg_class AS c
                    WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relname = 'dead_letters'), false) AS "canReadDeadLetters",
         ${mayCall("retry_dead_letters")} AS "canRetry",
         ${mayCall("discard_dead_letters")} AS "canDiscard",
         ${mayCall("pause_topic")} AS "canPause",
         ${mayCall("cancel_messages")} AS "canCancel",
         ${mayCall("job_message")} AS "canCopy",
         ${mayCall("run_schedule")} AS "canSchedule"
    FROM (SELECT) AS one
    LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'hawser'`;

/** Reads what the login may do. @throws HawserError as `Database.query` */
export async function readAbilities(database: Database): Promise<Abilities> {
  const abilities = await database.query<Abilities>("read the privileges of the login", { text: sql });
  const { canReadDeadLetters, canRetry, canDiscard, ...login } = abilities[0]!;
  // An operator who cannot read the rows cannot see which ones a button would change.
  return {
    ...login,
    canReadDeadLetters,
    canRetry: canRetry && canReadDeadLetters,
    canDiscard: canDiscard && canReadDeadLetters,
  };
}
