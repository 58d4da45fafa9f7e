"""The ASGI application of site_servers.py."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "site_servers"

from django.core.asgi import get_asgi_application

application = get_asgi_application()
if "MOLT_TEST_ADMISSION" in os.environ:
    from molt_accel.django.asgi import admission

    application = admission(application)
