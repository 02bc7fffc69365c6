import type { Spec } from "./model/spec.js";

/** The plugin's `opt` entries of buf.gen.yaml: `name=value`. */
export type PluginOptions = ReadonlyMap<string, string>;

/** A mistake in the plugin's entry of buf.gen.yaml. */
export class PluginOptionError extends Error {
  override readonly name = "PluginOptionError";
}

export function parseOptions(parameter: string): PluginOptions {
  const entries = parameter === "" ? [] : parameter.split(",");
  return new Map(
    entries.map((entry) => {
      const equals = entry.indexOf("=");
      return equals < 0 ? [entry, ""] : [entry.slice(0, equals), entry.slice(equals + 1)];
    }),
  );
}

/**
 * The spec narrowed to the package that `opt: [package=…]` names, for plugins that make one package's files.
 *
 * @throws PluginOptionError if the option is missing or names a package of which no file is asked for.
 */
export function specOfPackage(spec: Spec, options: PluginOptions): Spec & { readonly packageName: string } {
  const packageName = options.get("package");
  if (packageName === undefined) {
    throw new PluginOptionError("the option package is missing; add opt: [package=hawser.peer.v1] to buf.gen.yaml");
  }
  const files = spec.files.filter((file) => file.file.proto.package === packageName);
  if (files.length === 0) {
    throw new PluginOptionError(`the option package names "${packageName}", of which there is no file`);
  }
  return { files, packageName };
}
