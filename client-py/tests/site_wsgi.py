"""The WSGI application of site_servers.py."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "site_servers"

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

if "MOLT_TEST_EARLY" in os.environ:  # under --preload this is the process that forks the others
    from molt_accel.django import client

    client().ping()
