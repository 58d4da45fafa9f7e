"""The ASGI application of site_servers.py."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "site_servers"

from django.core.asgi import get_asgi_application

application = get_asgi_application()
