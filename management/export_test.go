package management

// Routes returns the paths of the API, as the document writes them, with their
// methods.
func Routes() map[string]resource {
	routes := map[string]resource{"": collection, "/{id}": oneKey, "/{id}/rotate": rotation}
	for name, at := range named {
		routes["/"+name] = at
	}
	return routes
}
