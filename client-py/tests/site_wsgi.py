"""The WSGI application of site_servers.py."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "site_servers"

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
