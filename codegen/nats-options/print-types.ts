/** Types of the options, which json-schema-to-typescript generates from the schema. */
import { compile, type JSONSchema, type Options } from "json-schema-to-typescript";
import type { AuthMode, OptionsModel } from "./model.js";
import type { Json, JsonObject } from "./schema-node.js";

/** Types of the options as given, of the complete options with their defaults, and of the authentication modes. */
export async function printTypes(model: OptionsModel): Promise<string> {
  const types = [
    await typesOf(givenSchema(model)),
    // The line before declares the type that this one extends.
    await typesOf(completeSchema(model), { declareExternallyReferenced: false }),
    await typesOf(authSchema(model)),
  ];
  return types.join("\n");
}

/** Types are named by the titles in the schema. */
function typesOf(schema: JsonObject, options: Partial<Options> = {}): Promise<string> {
  return compile(schema as JSONSchema, "", { bannerComment: "", style: { bracketSpacing: true }, ...options });
}

/** Schema without the rules over several options, for which the library would generate `unknown`. */
function givenSchema({ schema }: OptionsModel): JsonObject {
  const { allOf: _, ...rest } = schema;
  return rest;
}

function completeSchema({ title, options }: OptionsModel): JsonObject {
  const defaulted = options.filter((option) => option.default !== undefined);
  return {
    ...closedObject(defaulted.map(({ name, type }) => [name, { type }])),
    title: `Complete${title}`,
    description: "Checked options. Each option with a default is set.",
    // `extends` is a keyword of draft 3 that the library still supports.
    extends: { title, type: "object" },
  };
}

function authSchema({ modes }: OptionsModel): JsonObject {
  return {
    title: "NatsAuth",
    description: "Authentication mode, with the options that it uses.",
    oneOf: modes.map(modeSchema),
  };
}

function modeSchema({ mode, requires, description }: AuthMode): JsonObject {
  return {
    ...closedObject([["mode", { const: mode }], ...requires.map((name): [string, Json] => [name, { type: "string" }])]),
    title: `${mode}_auth`,
    description: `${description.charAt(0).toUpperCase()}${description.slice(1)}.`,
  };
}

/** Schema of an object that has all of these properties and no others. */
function closedObject(properties: readonly (readonly [name: string, schema: Json])[]): JsonObject {
  return {
    type: "object",
    properties: Object.fromEntries(properties),
    required: properties.map(([name]) => name),
    additionalProperties: false,
  };
}
