import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { printDocs } from "../../codegen/nats-options/print-docs.js";
import { sqlTexts } from "../../codegen/nats-options/print-sql.js";
import { readOptionsSchema } from "../../codegen/nats-options/read.js";
import { checkNatsServerOptions, resolveAuth } from "../../src/nats/connections/server-options.js";
import { ValidatorDatabase } from "./validator-database.js";

const file = "schema/nats-server-options.schema.json";

// biome-ignore lint/suspicious/noExplicitAny: the schema is changed into what its type would forbid.
type Any = any;

/** The project's schema after a change, as JSON. */
function changed(change: (schema: Any) => void): string {
  const schema: Any = JSON.parse(readFileSync(file, "utf8"));
  change(schema);
  return JSON.stringify(schema);
}

it("a changed range, combination and order of authentication are those of both validators, both resolvers and the page", async () => {
  const model = readOptionsSchema(
    changed((schema) => {
      schema.properties.port.maximum = 5000;
      schema.properties.domain.minLength = 2;
      schema.properties.responder_timeout_ms.minimum = -5;
      delete schema.properties.tls_insecure.default;
      schema.dependentRequired.domain = ["capacity"];
      schema.allOf.push({
        description: "at 4 replicas the domain is hub",
        if: { required: ["replicas"], properties: { replicas: { const: 4 } } },
        // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
        then: { properties: { domain: { const: "hub" } } },
        "x-violation": { option: "replicas", kind: "conflict", message: "not here", hint: "Lower it." },
      });
      const modes: { readonly mode: string }[] = schema["x-auth-priority"];
      const token = modes.findIndex(({ mode }) => mode === "token");
      modes.unshift(...modes.splice(token, 1));
    }),
    file,
  );
  const { shared, ownOnly, foreignOnly, wrapped, grants } = sqlTexts(model);
  await using database = await ValidatorDatabase.create({
    functions: wrapped.replace("@functions@", () => shared + ownOnly).replaceAll("@schema@", "hawser"),
    grants,
    foreignData: (shared + foreignOnly).replaceAll("@schema@", "hawser_fdw"),
  });
  const table = {
    options: Object.fromEntries(model.options.map((option) => [option.name, option])),
    rules: model.rules,
  };
  const hub = { domain: "hub", capacity: 1 };
  const expected: [options: Record<string, unknown>, violation: string | true][] = [
    [{ port: "5000" }, true],
    [{ port: "5001" }, 'option "port" must be an integer from 1 to 5000'],
    [{ domain: "hub" }, 'option "capacity" is missing: domain needs it'],
    [{ domain: "h", capacity: 1 }, 'option "domain" must have at least 2 characters'],
    [{ responder_timeout_ms: "-5" }, true],
    [{ responder_timeout_ms: -6 }, 'option "responder_timeout_ms" must be an integer from -5 to 86400000'],
    [{ ...hub, replicas: "4" }, true],
    [{ ...hub, replicas: "4", domain: "other" }, "not here"],
    [{ ...hub, replicas: 3, domain: "other" }, true],
    [{ replicas: 4 }, true],
  ];
  const inTypeScript = expected.map(([options]) => checkNatsServerOptions(options, table));
  expect(inTypeScript.map((answer) => answer.ok || answer.violation.message)).toEqual(expected.map(([, said]) => said));
  expect(inTypeScript[0]).not.toHaveProperty("options.tls_insecure");
  expect(await database.check(expected.map(([options]) => options))).toEqual(inTypeScript);

  const options = { creds_path: "/creds", nkey_seed_path: "/seed", nkey_seed: "S", token_path: "/token", token: "t" };
  const order = Object.fromEntries(model.modes.map(({ mode, requires }) => [mode, requires]));
  expect(resolveAuth(options, order)).toEqual({ mode: "token", token: "t" });
  const { rows } = await database.client.query("SELECT hawser.nats_auth_mode($1) AS mode", [options]);
  expect(rows[0].mode).toBe("token");
  const page = printDocs(model)[0]!.content;
  expect(page).toContain("| `port` | integer | `4222` | 1 to 5000 |");
  expect(page).toContain("| 1 | `token` | `token` |");
  expect(page).toContain("| 2 | `creds_path` | `creds_path` |");
});

describe("the generator refuses", () => {
  it.each<[what: string, change: (schema: Any) => void, message: string]>([
    [
      "a word that SQL has no part for",
      (s) => (s.properties.host.format = "uri"),
      "#/properties/host: must NOT have additional",
    ],
    [
      "a range that is not exact",
      (s) => (s.properties.port.maximum = Number.MAX_SAFE_INTEGER),
      "#/properties/port/maximum: must be <",
    ],
    [
      "a text that ends a comment",
      (s) => (s.properties.port.description = "a */ b"),
      "#/properties/port/description: must match",
    ],
    [
      "a name that Postgres cuts off",
      (s) => (s.properties["a".repeat(64)] = s.properties.port),
      "#/properties: must match pattern",
    ],
    [
      "a pattern that Postgres reads differently",
      (s) => (s.properties.host.pattern = "^\\w+$"),
      '#/properties/host/pattern: has "\\w" where',
    ],
    [
      "a condition that SQL has no part for",
      (s) => (s.allOf[1].if.minProperties = 2),
      "#/allOf/1/if: must NOT have additional",
    ],
    [
      "a mode that is never reached",
      (s) => s["x-auth-priority"].reverse(),
      '#/x-auth-priority/1: is never reached: "none" comes first',
    ],
    [
      "an order that leaves sets out",
      (s) => s["x-auth-priority"].pop(),
      "#/x-auth-priority/6: is the last mode and must require nothing",
    ],
  ])("%s", (_, change, message) => {
    expect(() => readOptionsSchema(changed(change), file)).toThrow(`${file}: ${message}`);
  });

  it("what is not JSON", () => {
    expect(() => readOptionsSchema("{", file)).toThrow(`${file}: #: is not JSON: `);
    expect(() => readOptionsSchema("[]", file)).toThrow(`${file}: #/properties: has no option`);
  });
});
