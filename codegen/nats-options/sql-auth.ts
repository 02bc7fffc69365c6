import { sqlString } from "../sql/literal.js";
import type { OptionsModel } from "./model.js";
import type { SqlFunction } from "./sql-function.js";

/** The resolver of the authentication mode, in the order of x-auth-priority. */
export function authFunction({ modes }: OptionsModel): SqlFunction {
  const branches = modes.map(({ mode, requires }) =>
    requires.length === 0
      ? `    ELSE ${sqlString(mode)}`
      : `    WHEN ${requires.map((option) => `options ->> ${sqlString(option)} IS NOT NULL`).join(" AND ")} THEN ${sqlString(mode)}`,
  );
  return {
    name: "nats_auth_mode",
    parameters: ["options jsonb"],
    returns: "text",
    traits: "IMMUTABLE PARALLEL SAFE STRICT",
    comment: "How these options authenticate: the first mode whose options are all set.",
    body: `
BEGIN
  RETURN CASE
${branches.join("\n")}
  END;
END`,
  };
}
