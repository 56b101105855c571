// Bundles the page's script into one file: node ui/bundle.mjs FILE

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const { build } = createRequire(`${root}clients/typescript/package.json`)("esbuild");

// The page speaks binary messages only. The JSON forms of messages, which nothing calls then, are
// a seventh of the bundle.
const functions = [
  "fromJson", "fromJsonString", "mergeFromJson", "mergeFromJsonString", "enumFromJson", "isEnumJson",
  "toJson", "toJsonString", "enumToJson",
];
const withoutJson = {
  name: "without JSON",
  setup(plugin) {
    plugin.onResolve({ filter: /\/(from|to)-json\.js$/ }, () => ({ path: "json", namespace: "none" }));
    plugin.onLoad({ filter: /.*/, namespace: "none" }, () => ({
      contents: `const none = () => { throw new Error("there is no JSON form here"); };
        export { ${functions.map((name) => `none as ${name}`).join(", ")} };`,
    }));
  },
};

await build({
  absWorkingDir: root,
  entryPoints: ["ui/page.mts"],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
  outfile: process.argv[2],
  plugins: [withoutJson],
});
