// A real OpenID Connect provider: node provider.mjs PORT REDIRECT_URI.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
const { default: Provider } = await import(pathToFileURL(createRequire(process.env.OIDC_PROVIDER + '/').resolve('oidc-provider')).href)
const [port, redirect] = process.argv.slice(2)
const provider = new Provider(`http://127.0.0.1:${port}`, {
	clients: [{ client_id: 'router', client_secret: 'client-secret-of-the-test', redirect_uris: [redirect] }],
	pkce: { required: () => true },
})
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'))
