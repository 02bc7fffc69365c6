import { startDevStack } from "../../src/dev/index.js";
import { compareMigratedSchema, makeNatsFunctions } from "./compare-schema.js";
import type { Step } from "./step.js";

/** A database that went through all migrations has the schema that the spec says, and takes the functions of NATS. */
export const schemaStep: Step = {
  name: "schema",
  async run() {
    await using stack = await startDevStack({ nats: false });
    await makeNatsFunctions(stack.databaseUrl);
    const differences = await compareMigratedSchema(stack.databaseUrl);
    return differences.length === 0
      ? { kind: "ok" }
      : {
          kind: "failed",
          details: differences.join("\n"),
          remedy:
            "Write what is missing into the .next.sql of schema/migrations/ (see schema/README.md, Migrations), and run `npm run generate`.",
        };
  },
};
