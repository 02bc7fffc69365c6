/** The types of the options, which json-schema-to-typescript makes of the schema. */
import { compile, type JSONSchema, type Options } from "json-schema-to-typescript";
import type { AuthMode, OptionsModel } from "./model.js";
import type { Json, JsonObject } from "./schema-node.js";

/** The options as they may be given, the options complete with their defaults, and the ways to authenticate. */
export async function printTypes(model: OptionsModel): Promise<string> {
  const types = [
    await typesOf(givenSchema(model)),
    // What it extends is there already.
    await typesOf(completeSchema(model), { declareExternallyReferenced: false }),
    await typesOf(authSchema(model)),
  ];
  return types.join("\n");
}

/** The types' names are the titles in the schema. */
function typesOf(schema: JsonObject, options: Partial<Options> = {}): Promise<string> {
  return compile(schema as JSONSchema, "", { bannerComment: "", style: { bracketSpacing: true }, ...options });
}

/** The schema without the rules over several options: the library would make `unknown` of them. */
function givenSchema({ schema }: OptionsModel): JsonObject {
  const { allOf: _, ...rest } = schema;
  return rest;
}

function completeSchema({ title, options }: OptionsModel): JsonObject {
  const defaulted = options.filter((option) => option.default !== undefined);
  return {
    ...closedObject(defaulted.map(({ name, type }) => [name, { type }])),
    title: `Complete${title}`,
    description: "Checked options: those with a default are all there.",
    // Of draft 3; the library still makes `extends` of it.
    extends: { title, type: "object" },
  };
}

function authSchema({ modes }: OptionsModel): JsonObject {
  return {
    title: "NatsAuth",
    description: "How to authenticate, with the options that it takes.",
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

/** An object that has these properties, all of them, and no others. */
function closedObject(properties: readonly (readonly [name: string, schema: Json])[]): JsonObject {
  return {
    type: "object",
    properties: Object.fromEntries(properties),
    required: properties.map(([name]) => name),
    additionalProperties: false,
  };
}
