"""The HTTP door: the calls of the gRPC server over HTTP/1.1, as JSON or a form, Connect, or gRPC-Web.

No second way in: a request becomes a call of the very chain of guards and the servicer that gRPC has, in this process, with the
address of its client, its headers as metadata and its certificate. `Door` listens, a `HttpConnection` speaks HTTP, a `Wire` turns
bodies into messages and answers into bodies, and `Calls` runs the handlers with a `HttpContext`.
"""
