/** State of Hawser's tables, which others can change without touching a column. */
import type pg from "pg";
import {
  describeDifferences,
  type StateDifference,
  sameDifferences,
  stateDifferences,
  stateRepairBlock,
  stateRepairsSql,
} from "../../jobs-and-peers/migrations/index.js";
import type { InstalledObject } from "./object.js";
import { isOfThisVersion } from "./schema-objects.js";
import type { Fault } from "./state.js";

/** Differences of the tables from the state in which this version creates them; empty for a schema of another version. */
export async function inspectTables(client: pg.Client): Promise<readonly StateDifference[]> {
  return (await isOfThisVersion(client)) ? stateDifferences(client) : [];
}

/**
 * Row security and persistence. The installation repairs them, because that loses nothing: policies stay. Rules,
 * triggers and the like were written by others, who have to decide about them.
 */
export const tables: InstalledObject = {
  name: "tables",
  what: "state of the tables",
  ofNats: false,
  // A dry run does not know what the new tables will be like.
  create: ({ tables: differences, roles: { owner } }) =>
    owner === null ? stateRepairBlock : stateRepairsSql(differences),
  faults: ({ tables: differences, roles: { ownsAll }, refusals }) =>
    sameDifferences(differences).map((same): Fault => {
      const { isHarmful, isRepairable } = same[0]!;
      const refusal = refusals.get("tables");
      return {
        kind: isRepairable ? "missing" : "risk",
        what: describeDifferences(same),
        ...(isHarmful && { meaning: "messages can get lost", code: "schema_missing" }),
        ...(refusal !== undefined && isRepairable && { refused: `repair it (${refusal})` }),
        remedy: same.map(({ statement }) => statement).join("; "),
        repairable: isRepairable && ownsAll,
        severity: isHarmful ? "error" : "warning",
        check: "schema-objects",
      };
    }),
};
