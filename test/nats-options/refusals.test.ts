import { describe, expect, it } from "vitest";
import { readOptionsSchema, refuseOtherRules } from "../../codegen/nats-options/read-schema.js";
import { smallSchema } from "./made-options.js";

const file = "schema/small.schema.json";

/** Error of the generator for the small schema after a change, without the file's name, which is always first. */
function refusal(change: (schema: Any) => void): string {
  const schema: Any = JSON.parse(smallSchema);
  change(schema);
  return refusalOfText(JSON.stringify(schema));
}

function refusalOfText(changed: string): string {
  try {
    readOptionsSchema(changed, file);
  } catch (error) {
    const { name, message } = error as Error;
    expect(name).toBe("SchemaError");
    expect(message.startsWith(`${file}: `)).toBe(true);
    return message.slice(file.length + 2);
  }
  return "accepted";
}

// biome-ignore lint/suspicious/noExplicitAny: the schema is changed into what its type would forbid.
type Any = any;

it("accepts the small schema", () => {
  expect(refusal(() => undefined)).toBe("accepted");
});

describe("refuses an option", () => {
  it.each<[what: string, change: (properties: Any) => void, message: string]>([
    [
      "of unknown type",
      (p) => (p.level.type = "number"),
      '#/properties/level/type: unknown option type "number"; use one of string, integer, boolean',
    ],
    ["without type", (p) => delete p.level.type, "#/properties/level/type: unknown option type undefined"],
    ["without description", (p) => delete p.level.description, "#/properties/level/description: is missing"],
    ["with an empty description", (p) => (p.level.description = " "), "#/properties/level/description: is not a text"],
    ["without remedy", (p) => delete p.loud["x-remedy"], "#/properties/loud/x-remedy: is missing"],
    [
      "whose description would end a comment",
      (p) => (p.loud.description = "a */ b"),
      "#/properties/loud/description: contains a control character, or */",
    ],
    [
      "whose remedy would end the function's body",
      (p) => (p.loud["x-remedy"] = "a $hawser$ b\n"),
      "#/properties/loud/x-remedy: contains a control character",
    ],
    [
      "with a default above its range",
      (p) => (p.level.default = 6),
      "#/properties/level/default: 6 is outside its range, -5 to 5",
    ],
    ["with a default of another type", (p) => (p.level.default = "1"), "#/properties/level/default: is not an integer"],
    [
      "with a boolean default that is a text",
      (p) => (p.loud.default = "true"),
      "#/properties/loud/default: is neither",
    ],
    [
      "with a text too long as default",
      (p) => (p.title.default = "12345678901"),
      "#/properties/title/default: is not 0 to 10 characters long",
    ],
    [
      "with a default that its pattern refuses",
      (p) => (p.key_path.default = "relative"),
      "#/properties/key_path/default: is not an absolute path",
    ],
    ["that is a secret with a default", (p) => (p.key.default = "abc"), "#/properties/key/default: a secret has no"],
    [
      "without minimum",
      (p) => delete p.level.minimum,
      "#/properties/level/minimum: is missing: every number has a range",
    ],
    ["with an empty range", (p) => (p.level.minimum = 6), "#/properties/level/minimum: is above the maximum, 5"],
    ["with half a number as limit", (p) => (p.level.maximum = 5.5), "#/properties/level/maximum: is not an integer"],
    [
      "with a limit where numbers stop being exact",
      (p) => (p.level.maximum = Number.MAX_SAFE_INTEGER),
      "#/properties/level: has a limit at the end",
    ],
    ["without maxLength", (p) => delete p.title.maxLength, "#/properties/title/maxLength: is missing: every text"],
    ["with minLength above maxLength", (p) => (p.key.minLength = 21), "#/properties/key/minLength: is not from 0 to"],
    [
      "with a pattern that Postgres reads differently",
      (p) => Object.assign(p.title, { pattern: "^\\w+$", "x-pattern-means": "a word" }),
      '#/properties/title/pattern: has "\\w" where JavaScript and Postgres may differ',
    ],
    [
      "with a pattern that leaves its ends open",
      (p) => Object.assign(p.title, { pattern: "[a-z]", "x-pattern-means": "a letter" }),
      "#/properties/title/pattern: must begin with ^ and end with $",
    ],
    [
      "with a pattern that nobody explains",
      (p) => (p.title.pattern = "^[a-z]*$"),
      "#/properties/title/x-pattern-means: is missing",
    ],
    [
      "with an explanation of no pattern",
      (p) => (p.title["x-pattern-means"] = "a letter"),
      "#/properties/title/x-pattern-means: needs a pattern",
    ],
    [
      "with a word of JSON Schema that SQL has no part for",
      (p) => (p.title.format = "uri"),
      "#/properties/title/format: is unknown here; use one of",
    ],
    ["with a word of another type", (p) => (p.loud.minimum = 0), "#/properties/loud/minimum: is unknown here"],
    [
      "that is a credential and not a text",
      (p) => (p.level["x-user-mapping"] = true),
      "#/properties/level/x-user-mapping: is unknown here",
    ],
    ["with a mistyped mark", (p) => (p.key["x-secrets"] = true), "#/properties/key/x-secrets: is unknown here"],
    [
      "with a mark that is no boolean",
      (p) => (p.key["x-secret"] = 1),
      "#/properties/key/x-secret: is neither true nor",
    ],
    ["that is no object", (p) => (p.level = true), "#/properties/level: is not an object"],
    [
      "with a name in camelCase",
      (p) => (p.keyPath = p.key_path),
      "#/properties/keyPath: is not a lower_snake_case name",
    ],
    [
      "with a name that Postgres cuts off",
      (p) => (p["a".repeat(64)] = p.loud),
      `#/properties/${"a".repeat(64)}: is not a lower_snake_case name of at most 63 bytes`,
    ],
    [
      "that refers to nothing",
      (p) => (p.key_path.$ref = "#/$defs/path"),
      '#/properties/key_path/$ref: "#/$defs/path" is none of this schema\'s $defs',
    ],
    [
      "that refers elsewhere",
      (p) => (p.key_path.$ref = "other.json#/$defs/file"),
      '#/properties/key_path/$ref: "other.json#/$defs/file" is none of',
    ],
  ])("%s", (_, change, message) => {
    expect(refusal((schema) => change(schema.properties))).toContain(message);
  });
});

describe("refuses a rule over several options", () => {
  it.each<[what: string, change: (schema: Any) => void, message: string]>([
    [
      "that depends on an unknown option",
      (s) => (s.dependentRequired.loud = ["volume"]),
      '#/dependentRequired/loud: names the unknown option "volume"',
    ],
    ["of an unknown option", (s) => (s.dependentRequired.volume = ["loud"]), "#/dependentRequired/volume: is unknown"],
    ["that needs itself", (s) => (s.dependentRequired.loud = ["loud"]), "#/dependentRequired/loud: needs itself"],
    [
      "that names an option twice",
      (s) => (s.dependentRequired.loud = ["title", "title"]),
      "#/dependentRequired/loud: names title twice",
    ],
    ["without violation", (s) => delete s.allOf[0]["x-violation"], "#/allOf/0/x-violation: is missing"],
    ["without description", (s) => delete s.allOf[1].description, "#/allOf/1/description: is missing"],
    [
      "whose violation names an unknown option",
      (s) => (s.allOf[0]["x-violation"].option = "volume"),
      '#/allOf/0/x-violation/option: names the unknown option "volume"',
    ],
    [
      "of unknown kind",
      (s) => (s.allOf[0]["x-violation"].kind = "bad"),
      '#/allOf/0/x-violation/kind: "bad" is neither "missing" nor "conflict"',
    ],
    ["without hint", (s) => delete s.allOf[0]["x-violation"].hint, "#/allOf/0/x-violation/hint: is missing"],
    [
      "in words that SQL has no part for",
      (s) => (s.allOf[0].then.minProperties = 2),
      "#/allOf/0/then/minProperties: is unknown here; use one of required, properties, not",
    ],
    [
      "about the value of an unknown option",
      (s) => (s.allOf[0].if.properties = { volume: { const: 1 } }),
      "#/allOf/0/if/properties/volume: is not an option",
    ],
    [
      "about a value of another type",
      (s) => (s.allOf[0].if.properties.level.const = "5"),
      "#/allOf/0/if/properties/level: needs a const of type integer",
    ],
    [
      "about more than a value",
      (s) => (s.allOf[0].if.properties.level = { minimum: 3 }),
      "#/allOf/0/if/properties/level/minimum: is unknown here",
    ],
    ["that demands nothing", (s) => (s.allOf[0].if = {}), "#/allOf/0/if: demands nothing"],
    ["with then but no if", (s) => delete s.allOf[0].if, "#/allOf/0: has then or else without if"],
    ["that is not an array", (s) => (s.allOf = {}), "#/allOf: is not an array"],
  ])("%s", (_, change, message) => {
    expect(refusal(change)).toContain(message);
  });
});

describe("refuses an order of authentication", () => {
  it.each<[what: string, change: (modes: Any[]) => void, message: string]>([
    [
      "that names an unknown option",
      (m) => (m[0].requires = ["key_file"]),
      '#/x-auth-priority/0/requires: names the unknown option "key_file"',
    ],
    [
      "that lists one mode twice",
      (m) => m.splice(2, 0, { ...m[0], requires: ["key_path", "key"] }),
      '#/x-auth-priority/2/mode: lists the mode "file" twice',
    ],
    [
      "that lists one mode's options twice",
      (m) => m.splice(2, 0, { ...m[0], mode: "other" }),
      '#/x-auth-priority/2: is never reached: "file" comes first',
    ],
    [
      "with a mode that an earlier one hides",
      (m) => m.splice(2, 0, { ...m[0], mode: "both", requires: ["key", "key_path"] }),
      '#/x-auth-priority/2: is never reached: "file" comes first',
    ],
    [
      "without a mode for the rest",
      (m) => m.pop(),
      "#/x-auth-priority/1/requires: is the last mode and must require nothing",
    ],
    ["without any mode", (m) => m.splice(0), "#/x-auth-priority: is missing or empty"],
    [
      "with an option that is not a credential",
      (m) => m[0].requires.push("title"),
      '#/x-auth-priority/0/requires: "title" is not a credential: it lacks x-user-mapping',
    ],
    ["that leaves a credential out", (m) => m.splice(1, 1), '#/x-auth-priority: has no mode for the credential "key"'],
    ["with a mode without requires", (m) => delete m[2].requires, "#/x-auth-priority/2/requires: is missing"],
    ["with a mode without description", (m) => delete m[0].description, "#/x-auth-priority/0/description: is missing"],
    ["with a mode of a bad name", (m) => (m[0].mode = "in file"), '#/x-auth-priority/0/mode: "in file" is not a lower'],
  ])("%s", (_, change, message) => {
    expect(refusal((schema) => change(schema["x-auth-priority"]))).toContain(message);
  });
});

describe("refuses a schema", () => {
  it.each<[what: string, change: (schema: Any) => void, message: string]>([
    ["of another dialect", (s) => delete s.$schema, '#/$schema: is not "https://json-schema.org/draft/2020-12/schema"'],
    ["that lets unknown options pass", (s) => delete s.additionalProperties, "#/additionalProperties: is not false"],
    ["of another type", (s) => (s.type = "array"), '#/type: is not "object"'],
    ["without options", (s) => (s.properties = {}), "#/properties: has no option"],
    ["with an unknown word", (s) => (s.dependantRequired = {}), "#/dependantRequired: is unknown here"],
    ["with a title that is no type's name", (s) => (s.title = "small options"), "#/title: is not the name of a"],
    ["without an SQLSTATE", (s) => delete s["x-sqlstate"].missing, "#/x-sqlstate/missing: is missing"],
    ["with a bad SQLSTATE", (s) => (s["x-sqlstate"].value = "HV1"), '#/x-sqlstate/value: "HV1" is not the SQLSTATE'],
    ["with the SQLSTATE of success", (s) => (s["x-sqlstate"].value = "00000"), '#/x-sqlstate/value: "00000" is not'],
  ])("%s", (_, change, message) => {
    expect(refusal(change)).toContain(message);
  });

  it("that is not JSON", () => {
    expect(refusalOfText("{")).toMatch(/^#: is not JSON: /);
    expect(refusalOfText("[]")).toBe("#: is not an object");
  });

  it("with an option written twice", () => {
    const twice = smallSchema.replace('"loud": {', '"level": {},\n    "loud": {');
    expect(refusalOfText(twice)).toMatch(
      /^#\/properties\/level: occurs twice in its object; the second time in line \d+$/,
    );
  });
});

describe("refuses an option that is not as the rules which it names", () => {
  const rules = { named: "path", pattern: { source: "^/[a-z]+$", means: "must be a path" } };
  const named = [{ name: "path", about: "A path.", rules, limit: "", file: undefined as never }];
  it.each<[what: string, change: (option: Any) => void, message: string]>([
    ["because there are none of that name", (o) => (o["x-rules"] = "paths"), '"paths" does not name rules with a'],
    ["in its pattern", (o) => (o.pattern = "^/[a-y]+$"), 'pattern and x-pattern-means differ from those of "path"'],
    ["in its words", (o) => (o["x-pattern-means"] = "a way"), "pattern and x-pattern-means differ from those of"],
    ["not: it is", () => undefined, "accepted"],
  ])("%s", (_, change, message) => {
    const schema: Any = JSON.parse(smallSchema);
    const option: Any = { ...schema.$defs.file, ...schema.properties.key_path };
    delete option.$ref;
    Object.assign(option, { pattern: "^/[a-z]+$", "x-pattern-means": "a path", "x-rules": "path" });
    change(option);
    schema.properties.key_path = option;
    const refused = (): string => {
      try {
        refuseOtherRules(readOptionsSchema(JSON.stringify(schema), file), named);
      } catch (error) {
        return (error as Error).message;
      }
      return "accepted";
    };
    expect(refused()).toContain(message === "accepted" ? message : `#/properties/key_path/x-rules: ${message}`);
  });
});
