/** Check of the functions that are bound to subjects. */
import pg from "pg";
import { tables } from "../../../generated/ts/rows/nats.js";
import { functionNameSql, mayBindSql, wrapperJoinSql } from "../installation/index.js";
import { catalogCheck } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

const { escapeLiteral: literal } = pg;

/**
 * Query: bound functions with the privileges that their calls need. The dependencies of a wrapper (pg_depend) lead to
 * its function.
 */
const brokenSql = `
  SELECT h.kind, h.subject, ${functionNameSql} AS called, h.wrapper,
         w.oid IS NOT NULL AS present, quote_ident(pg_get_userbyid(w.proowner)) AS owner, t.oid::regprocedure::text AS target,
         w.oid::regprocedure::text AS signature,
         coalesce(has_function_privilege(w.proowner, t.oid, 'EXECUTE'), true) AS "mayRun", ${mayBindSql} AS "mayBind",
         coalesce((SELECT has_function_privilege(e.oid, w.oid, 'EXECUTE') FROM pg_roles AS e WHERE e.rolname = 'hawser_executor'), true)
           AS "mayBeCalled", w.prosecdef AS "isDefiner"
    FROM ${tables.natsHandler} AS h
    ${wrapperJoinSql("LEFT JOIN")}
    LEFT JOIN LATERAL (
      SELECT p.oid FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid AND p.pronamespace <> w.pronamespace
       WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.objid = w.oid
         AND p.pronargs > 0
       LIMIT 1
    ) AS t ON true
   ORDER BY h.id`;

interface Handler {
  readonly kind: string;
  readonly subject: string;
  readonly called: string;
  readonly present: boolean;
  readonly owner: string | null;
  readonly target: string | null;
  readonly signature: string | null;
  readonly mayRun: boolean;
  readonly mayBind: boolean;
  readonly mayBeCalled: boolean;
  readonly isDefiner: boolean | null;
}

const maxListedFindings = 20;

/** Creates the check that the bound functions exist and may be executed. */
export function handlersCheck(facts: Facts): Check {
  return catalogCheck("bound-functions", () => handlers(facts), { needs: ["nats-from-sql"] });
}

async function handlers(facts: Facts): Promise<Verdict> {
  const counts = await facts.handlerCounts();
  if (counts === undefined)
    return { notChecked: `this login may not read ${tables.natsHandler}: GRANT hawser_bridge to it` };
  const found = await facts.rows<Handler>(brokenSql);
  const findings = [
    ...(await facts.findings("bound-functions")),
    ...found.flatMap((handler) => faultOf(handler) ?? []),
  ];
  const more = findings.length - maxListedFindings;
  return {
    findings: [
      ...findings.slice(0, maxListedFindings),
      ...(more > 0
        ? [{ ...findings[maxListedFindings]!, what: `and ${more} more, such as: ${findings[maxListedFindings]!.what}` }]
        : []),
    ],
    seen: `${counts.subscriptions} subscriptions, ${counts.responders} responders`,
  };
}

function faultOf(handler: Handler): Finding | undefined {
  const { kind, subject, called, present, owner, target, signature, mayRun, mayBind, mayBeCalled, isDefiner } = handler;
  const isSubscription = kind === "subscription";
  const name = isSubscription ? `the subscription to "${subject}"` : `the responder for "${subject}"`;
  const again = isSubscription
    ? `SELECT nats_subscribe(${literal(subject)}, '…')`
    : `SELECT litmus_pgnats_register_responder(${literal(subject)}, '…')`;
  if (!present) {
    return {
      severity: "error",
      what: `the function ${called} of ${name} no longer exists: it was dropped with CASCADE`,
      remedy: `Create it again, and ${again}; or remove its entry: SELECT hawser.prune_handlers()`,
    };
  }
  const refused = (what: string, remedy: string): Finding => ({
    severity: "error",
    code: "not_permitted",
    what,
    remedy,
  });
  if (!mayBind) {
    return refused(
      `${owner}, as whom ${name} runs, may not subscribe functions any more: ${called} is not called`,
      `GRANT hawser_nats TO ${owner}; or end it: DROP FUNCTION ${signature}`,
    );
  }
  if (!mayRun) {
    return refused(
      `${owner}, as whom ${name} runs, may not execute ${target}`,
      `GRANT EXECUTE ON FUNCTION ${target} TO ${owner}`,
    );
  }
  const changed = `the wrapper ${signature} of ${name} was changed`;
  if (!mayBeCalled) {
    return refused(
      `${changed}: hawser_executor may not execute it`,
      `GRANT EXECUTE ON FUNCTION ${signature} TO hawser_executor`,
    );
  }
  return isDefiner === true
    ? undefined
    : refused(`${changed}: it is not SECURITY DEFINER`, `DROP FUNCTION ${signature}; then ${again}`);
}
