/** Types of the options, which json-schema-to-typescript generates from the schema. */
import { compile, type JSONSchema, type Options } from "json-schema-to-typescript";
import type { OptionsModel } from "./read.js";

/** Types of the options as given, of the complete options with their defaults, and of the authentication modes. */
export async function printTypes({ title, description, options, modes }: OptionsModel): Promise<string> {
  const given = Object.fromEntries(
    options.map((option) => [option.name, { type: option.type, description: option.description }]),
  );
  const defaulted = options.filter((option) => option.default !== undefined).map(({ name, type }) => [name, { type }]);
  const complete = {
    ...closedObject(Object.fromEntries(defaulted)),
    title: `Complete${title}`,
    description: "Checked options. Each option with a default is set.",
    // `extends` is a keyword of draft 3 that the library still supports.
    extends: { title, type: "object" },
  };
  const auth = {
    title: "NatsAuth",
    description: "Authentication mode, with the options that it uses.",
    oneOf: modes.map(({ mode, requires, description: about }) => ({
      ...closedObject({
        mode: { const: mode },
        ...Object.fromEntries(requires.map((name) => [name, { type: "string" }])),
      }),
      title: `${mode}_auth`,
      description: `${about.charAt(0).toUpperCase()}${about.slice(1)}.`,
    })),
  };
  return [
    await typesOf({ ...closedObject(given), required: [], title, description }),
    // The line before declares the type that this one extends.
    await typesOf(complete, { declareExternallyReferenced: false }),
    await typesOf(auth),
  ].join("\n");
}

/** Types are named by the titles in the schema. */
function typesOf(schema: object, options: Partial<Options> = {}): Promise<string> {
  return compile(schema as JSONSchema, "", { bannerComment: "", style: { bracketSpacing: true }, ...options });
}

/** Schema of an object that has all of these properties and no others. */
function closedObject(properties: object) {
  return { type: "object", properties, required: Object.keys(properties), additionalProperties: false };
}
