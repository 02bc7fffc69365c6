import { compile, type JSONSchema } from "json-schema-to-typescript";
import type { OptionsModel } from "./model.js";

/**
 * The options as TypeScript types: as they may be given, and complete with their defaults.
 *
 * Only names, types and descriptions go in: rules over several options do not reach TypeScript's types anyway, and
 * would turn the interface into an intersection.
 */
export async function printTypes(model: OptionsModel): Promise<string> {
  const properties = Object.fromEntries(
    model.options.map((option) => [option.name, { type: option.type, description: option.description }]),
  );
  const schema: JSONSchema = {
    title: model.title,
    description: model.description,
    type: "object",
    additionalProperties: false,
    properties,
  };
  const types = await compile(schema, model.title, {
    bannerComment: "",
    format: true,
    style: { printWidth: 120 },
    additionalProperties: false,
  });
  return `\n${types}${printComplete(model)}`;
}

function printComplete({ title, options }: OptionsModel): string {
  const defaulted = options.filter((option) => option.default !== undefined);
  const type =
    defaulted.length === 0
      ? title
      : `${title} &\n  Required<Pick<${title}, ${defaulted.map(({ name }) => JSON.stringify(name)).join(" | ")}>>`;
  return `\n/** Checked options: those with a default are all there. */\nexport type Complete${title} = ${type};\n`;
}
