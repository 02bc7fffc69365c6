import { nextMigration, releasedFunctionsChecksum } from "../../generated/ts/sql/migrations.js";
import { startDevStack } from "../../src/development/dev/index.js";
import { functionsChecksum, migrations, programSchema } from "../../src/jobs-and-peers/migrations/index.js";
import { compareMigratedSchema, makeNatsFunctions } from "./compare-schema.js";
import type { Step } from "./step.js";

/**
 * Step that checks that a database after all migrations has the schema of the spec, and accepts the functions of NATS;
 * and that programs with the same steps have the same functions: otherwise an older one that starts would put its own back.
 */
export const schemaStep: Step = {
  name: "schema",
  async run() {
    const last = migrations.length;
    if (nextMigration === undefined && functionsChecksum(programSchema) !== releasedFunctionsChecksum) {
      return {
        kind: "failed",
        details: `The functions, views or grants differ from those that were released with migration ${last}.`,
        remedy: `Make a file schema/migrations/${last + 1}-….next.sql; for programs that know only migration ${last} to go on: -- Oldest program: ${last}.`,
      };
    }
    await using stack = await startDevStack({ nats: false });
    await makeNatsFunctions(stack.databaseUrl);
    const differences = await compareMigratedSchema(stack.databaseUrl);
    return differences.length === 0
      ? { kind: "ok" }
      : {
          kind: "failed",
          details: differences.join("\n"),
          remedy:
            "Write what is missing into the .next.sql of schema/migrations/ (see schema/README.md), and run `npm run generate`.",
        };
  },
};
