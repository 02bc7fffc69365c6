/** Repository on GitHub. */
export interface Home {
  readonly owner: string;
  readonly name: string;
  readonly url: string;
}

/**
 * Home of the project, which the addresses in the package, of the image, of the chart and of the docs follow:
 * `OWNER/NAME` of `GITHUB_REPOSITORY`, which GitHub sets in a workflow.
 *
 * @param fallback used if the variable is not set
 * @throws Error if the variable is not of that form
 */
export function readHome(fallback = "OWNER/hawser"): Home {
  const repository = process.env["GITHUB_REPOSITORY"] ?? fallback;
  const [, owner, name] = /^([\w.-]+)\/([\w.-]+)$/.exec(repository) ?? [];
  if (owner === undefined || name === undefined) {
    throw new Error(`GITHUB_REPOSITORY is "${repository}"; it must be OWNER/NAME.`);
  }
  return { owner, name, url: `https://github.com/${owner}/${name}` };
}
